"""What all HTTP connections of the server share: bounds, admission for each turn of the event loop, deadlines."""

import asyncio
import time
from collections.abc import Collection, Iterable, Iterator
from typing import Final, Protocol, runtime_checkable

from edgewright_agent.serving.busy_poll import BusyPoll
from edgewright_agent.serving.inference import Inference, Limits

SWEEP_SECONDS: Final = 0.25
IDLE_SWEEP_SECONDS: Final = 1.0
DRAIN_SECONDS: Final = 1.0
"""At shutdown an open connection gets so long to send one more request, which is answered with `close`."""
LINGER_SECONDS: Final = 2.0
"""After a refusal what the client still sends is thrown away for so long, so that it can read the refusal."""
SHED_SECONDS: Final = 0.1
"""A connection that got 503 is not read for so long."""
LATE_SECONDS: Final = 0.005
"""After so long in one turn of the event loop nothing more is parsed in it."""
FEW: Final = 8
"""So many connections never make a queue worth shedding."""


@runtime_checkable
class Overdue(Protocol):
    """A connection that knows its deadlines; `now` is the loop's time in seconds."""

    def close_if_overdue(self, now: float) -> None:
        """Apply them."""

    def gives_way(self, now: float) -> bool:
        """Close if nothing was asked for a second; whether it did."""


class Turn:
    """How much was answered since the event loop last looked at its sockets; what is beyond is shed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._began = 0.0
        self._count = 0
        self.open = False

    def begin(self) -> None:
        """The loop has found sockets ready."""
        self.open, self._count, self._began = True, 0, time.perf_counter()

    def end(self) -> None:
        """All that were ready have had their answer."""
        self.open = False

    def admits(self) -> bool:
        """Whether there is time for one more."""
        self._count += 1
        return self._count <= self._limits.concurrency and self.lasted() <= self._limits.turn_seconds

    def lasted(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self._began


class Door:
    """What all connections of one server share."""

    def __init__(self, inference: Inference, busy_poll: BusyPoll) -> None:
        self.inference, self.busy_poll = inference, busy_poll
        self.limits: Limits = inference.limits
        self.turn = Turn(inference.limits)
        self.draining = False
        self._asked: Iterator[Overdue] = iter(())
        self._ask_again = 0.0

    def makes_room(self, connections: Iterable[object], now: float) -> bool:
        """Have an idle connection close for a new one; whether there was one.

        All are asked once in a sweep's time: a crowd of new connections would otherwise ask all others each.
        """
        if now >= self._ask_again:
            self._asked = iter([other for other in connections if isinstance(other, Overdue)])
            self._ask_again = now + SWEEP_SECONDS
        return any(other.gives_way(now) for other in self._asked)

    def has_no_end(self, data: bytes) -> bool:
        """Whether data, in which a head should end, is longer than any head may be and none ends in time."""
        return len(data) > self.limits.head_bytes and data.find(b"\r\n\r\n", 0, self.limits.head_bytes) < 0

    async def sweep(self, connections: Collection[object]) -> None:
        """Close what is overdue, until cancelled: no timer for each request, which would cost each request."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS if connections else IDLE_SWEEP_SECONDS)
            for connection in list(connections):
                if isinstance(connection, Overdue):
                    connection.close_if_overdue(loop.time())

    def is_late(self) -> bool:
        """Whether this turn of the event loop has lasted so long that what else was read is to wait for the next."""
        self._begin()
        return self.turn.lasted() > LATE_SECONDS

    def _begin(self) -> None:
        if not self.turn.open:
            self.turn.begin()
            asyncio.get_running_loop().call_soon(self.turn.end)  # runs when every socket that was ready has been read

    def admits(self, connections: int) -> bool:
        """Whether there is time for one more request in this turn of the event loop."""
        if self.limits.concurrency == 0:
            return False
        if connections <= FEW:
            return True
        self._begin()
        return self.turn.admits()
