"""How many gRPC calls are under way, those that gRPC's core holds included, and which of them are beyond the bound.

The core takes calls in by itself and hands them to Python one at a time: what waits there only its own counters show.
"""

from collections.abc import Callable
from typing import Final

import orjson
from grpc._cython import cygrpc

CHANNELZ: Final = ("grpc.enable_channelz", 1)
"""The option with which a server counts its calls."""
_READINGS: Final = 8
"""So often the counters are read while as many calls come as the bound allows; one reading takes about 0.1 ms."""


def calls_under_way() -> int:
    """Calls of all servers of this process that have begun and not ended, as the core counts them."""
    told = [server["data"] for server in orjson.loads(cygrpc.channelz_get_servers(0))["server"]]
    return sum(int(one["callsStarted"]) - int(one["callsSucceeded"]) - int(one["callsFailed"]) for one in told)


class Backlog:
    """Says which calls are beyond the bound: the oldest, so that the others are answered soon."""

    def __init__(self, bound: int, under_way: Callable[[], int] = calls_under_way) -> None:
        self._bound, self._under_way = bound, under_way
        self._every = max(1, bound // _READINGS)
        self._came = self._beyond = 0

    def arrived(self) -> None:
        """One more call was handed over."""
        self._came += 1
        if self._came % self._every == 0:
            self._beyond = max(0, self._under_way() - self._bound)

    def sheds(self) -> bool:
        """Whether the call at hand is to be refused."""
        if self._beyond == 0:
            return False
        self._beyond -= 1
        return True
