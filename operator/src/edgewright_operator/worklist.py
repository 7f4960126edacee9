"""A keyed queue with an interval of its own: one round of each key at a time, wakes in between fold into one."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from edgewright_operator.api import ClusterError, Conflict
from edgewright_operator.pacing import Backoff

log = structlog.get_logger()

GAP_SECONDS = 0.1
"""Least pause between two rounds of a key, so that a burst of events is one round."""
_SHARE = 4.0
"""A round is followed by a pause of so many times its length: deciding over 10,000 nodes takes a fifth of a core."""
_LONGEST = 1.0
"""Seconds; a round is long also because it wrote much, and then the next one is waited for."""


@dataclass(slots=True)
class Worklist:
    """`work(key)` runs when the key is woken and at least every `interval` seconds."""

    work: Callable[[str], Awaitable[None]]
    interval: float
    group: asyncio.TaskGroup
    clock: Callable[[], float] = time.monotonic
    woken: dict[str, asyncio.Event] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def wake(self, key: str) -> None:
        """Something about the key may have changed."""
        if key not in self.tasks:
            self.woken[key] = asyncio.Event()
            self.tasks[key] = self.group.create_task(self._serve(key), name=f"reconcile {key}")
        self.woken[key].set()

    def forget(self, key: str) -> None:
        """The key is gone; a round of it that runs ends where it stands."""
        if task := self.tasks.pop(key, None):
            del self.woken[key]
            task.cancel()

    async def _serve(self, key: str) -> None:
        woken, backoff = self.woken[key], Backoff()
        while True:
            woken.clear()
            began = self.clock()
            pause = await self._once(key, backoff)
            await asyncio.sleep(max(pause, GAP_SECONDS, min(_SHARE * (self.clock() - began), _LONGEST)))
            try:
                async with asyncio.timeout(self.interval):
                    await woken.wait()
            except TimeoutError:
                continue

    async def _once(self, key: str, backoff: Backoff) -> float:
        """One round; seconds to wait before the next one may begin."""
        try:
            await self.work(key)
        except Conflict as conflict:
            log.info("out of date, deciding anew", key=key, conflict=str(conflict))
            self.wake(key)
            return 0.0
        except ClusterError as error:
            log.warning("round not finished", key=key, error=str(error))
        except Exception:  # a fault of ours with one object must not stop the others; the traceback says where
            log.exception("round failed", key=key)
        else:
            backoff.worked()
            return 0.0
        self.wake(key)
        return backoff.failed()
