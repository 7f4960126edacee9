"""After an answer to a client that asks again at once, the event loop looks for the next request without sleeping.

A core that sleeps takes tens of microseconds to wake, on a virtual machine more than a request costs otherwise. Linux
can do the same for a socket (SO_BUSY_POLL); here the whole loop turns, so that every connection is looked at.
"""

import asyncio
import time
from collections.abc import Callable


class BusyPoll:
    """Keeps the running loop awake for `seconds` after an answer, once requests follow answers within that time.

    A client that pauses for longer costs one such time and no more: what counts is how soon the last request came.
    With 0 seconds nothing is kept awake.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._seconds, self._clock = seconds, clock
        self._answered = -seconds
        self._soon = self._turning = False

    def asked(self) -> None:
        """A request has come."""
        self._soon = self._clock() - self._answered < self._seconds

    def answered(self) -> None:
        """It has its answer."""
        self._answered = self._clock()
        if self._soon and not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """One look at the sockets has come between this call and the last."""
        self._turning = self._clock() - self._answered < self._seconds
        if self._turning:
            asyncio.get_running_loop().call_soon(self._turn)
