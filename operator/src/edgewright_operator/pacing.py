"""How fast to ask again: full-jitter backoff for one caller, and one pace for the whole process in times of trouble."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

CAP_SECONDS = 4.0
SPACING_SECONDS = 0.5
_LONGEST_WISH = 30.0


@dataclass(slots=True)
class Backoff:
    """Seconds to wait after each failure in a row: uniform in [0, base · 2ⁿ], capped (Brooker 2015, "full jitter")."""

    base: float = 0.2
    cap: float = CAP_SECONDS
    uniform: Callable[[float, float], float] = random.uniform
    failures: int = 0

    def failed(self) -> float:
        """One more failure: how long to wait now."""
        self.failures += 1
        return self.uniform(0.0, min(self.cap, self.base * 2.0 ** min(self.failures, 16)))

    def worked(self) -> None:
        """The next failure is a first one again."""
        self.failures = 0


@dataclass(slots=True)
class Pacing:
    """While the API server is in trouble, requests leave one by one, at most two a second, later if it says so."""

    clock: Callable[[], float] = time.monotonic
    backoff: Backoff = field(default_factory=lambda: Backoff(base=SPACING_SECONDS))
    troubled: bool = False
    open_at: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def turn(self) -> None:
        """Returns when the next request may leave; at once in good times."""
        if not self.troubled:
            return
        async with self.lock:
            while self.troubled and (wait := self.open_at - self.clock()) > 0:  # noqa: ASYNC110 - it is a pause
                await asyncio.sleep(min(wait, SPACING_SECONDS))
            self.open_at = max(self.open_at, self.clock() + SPACING_SECONDS)

    def heard(self, *, busy: bool, retry_after: str | None = None) -> None:
        """What a request met. `retry_after`: the header's seconds, honored up to half a minute."""
        if not busy:
            self.troubled = False
            self.backoff.worked()
            return
        self.troubled = True
        wish = float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
        pause = max(SPACING_SECONDS, min(wish, _LONGEST_WISH), self.backoff.failed())
        self.open_at = max(self.open_at, self.clock() + pause)
