"""How often something may be done: a bucket that fills with time. Pure but for the clock that is passed in."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Budget:
    """`burst` at once, then `per_second` (token bucket)."""

    per_second: float
    burst: float
    clock: Callable[[], float]
    _left: float = field(init=False)
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        """It begins full."""
        self._left, self._at = self.burst, self.clock()

    def take(self) -> bool:
        """Whether once more is allowed; it is used up then."""
        now = self.clock()
        self._left = min(self.burst, self._left + (now - self._at) * self.per_second)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
