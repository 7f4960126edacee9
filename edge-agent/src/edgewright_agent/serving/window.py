"""The ring of the last readings at 1 Hz: short gaps hold the last value, long ones become 0, all are counted."""

import math
from typing import Final

import numpy as np

from edgewright_agent.serving.engine import Watts

HOLD_SECONDS: Final = 60
MAX_STEP_BACK: Final = 3600
"""A reading older than this means that the clock was set back, so the ring begins anew."""
CLOCK_SECONDS: Final = 3600
"""A meter's clock may be so far ahead of the node's."""


class Ring:
    """The last `capacity` seconds of watts."""

    def __init__(self, capacity: int = 86_400) -> None:
        self._watts: Watts = np.zeros(capacity, np.float32)
        self._capacity = capacity
        self.last: int | None = None
        self.filled = 0

    def push(self, second: int, watts: float) -> int:
        """Add the reading of this Unix second; give the seconds that were missing before it.

        A second reading of the same second replaces the first; one that comes late is dropped.
        """
        last = self.last
        if last is not None and last - MAX_STEP_BACK < second < last:
            return 0
        if last is None or second < last:
            self.filled, last = 0, second - 1
        gap = second - last - 1
        if gap > 0:
            self._fill_gap(last, gap)
        self._watts[second % self._capacity] = watts
        self.filled = min(self._capacity, self.filled + max(0, second - last))
        self.last = second
        return max(gap, 0)

    def _fill_gap(self, last: int, gap: int) -> None:
        held = self._watts[last % self._capacity] if self.filled else np.float32(0)
        start = max(0, gap - self._capacity)
        steps = np.arange(start, gap)
        self._watts[(last + 1 + steps) % self._capacity] = np.where(steps < HOLD_SECONDS, held, 0)

    def latest(self, seconds: int) -> Watts | None:
        """The last `seconds` readings, oldest first, [seconds]; none before there are so many."""
        if self.last is None or self.filled < seconds or seconds > self._capacity:
            return None
        places = np.arange(self.last - seconds + 1, self.last + 1) % self._capacity
        return self._watts[places]


def is_reading(second: float, watts: float) -> bool:
    """Whether both are finite and plausible: a time since 1970 and below 1 MW either way."""
    return math.isfinite(second) and math.isfinite(watts) and 0 <= second < 2**40 and abs(watts) < 1e6
