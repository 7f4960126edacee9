"""Holds the Lease and acts while it is held: waits, begins, renews, and ends for good when another took over."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import structlog

from edgewright_operator.api import ClusterError
from edgewright_operator.cluster import Cluster
from edgewright_operator.election import Election, Standing

log = structlog.get_logger()

ENDED = 0
LOST = 1
_ATTEMPTS = 4
"""In each life of the Lease, so that one lost answer costs nothing."""


async def leading(
    election: Election, cluster: Cluster, begin: Callable[[], Coroutine[Any, Any, None]], ending: asyncio.Event
) -> int:
    """Exit code: `LOST` when another operator holds the Lease that we held, `ENDED` when told to end.

    Raises:
        BaseException: what ended `begin()`.
    """
    told = asyncio.create_task(ending.wait(), name="told to end")
    held = asyncio.create_task(_until(election, cluster, Standing.HELD), name="wait for the Lease")
    tasks: list[asyncio.Task[Any]] = [told, held]
    try:
        await asyncio.wait((told, held), return_when=asyncio.FIRST_COMPLETED)
        if told.done():
            return ENDED
        held.result()
        log.info("acting", identity=election.identity, term=election.term)
        acting = asyncio.create_task(begin(), name="act")
        lost = asyncio.create_task(_until(election, cluster, Standing.LOST), name="renew the Lease")
        tasks += [acting, lost]
        await asyncio.wait((told, acting, lost), return_when=asyncio.FIRST_COMPLETED)
        if acting.done():
            acting.result()
        if not told.done():
            lost.result()
            log.error("the Lease was lost: another operator acts")
            return LOST
    finally:
        await _cancelled(tasks)
    with suppress(ClusterError):
        await election.release(cluster, datetime.now(UTC))
    return ENDED


async def _until(election: Election, cluster: Cluster, wanted: Standing) -> None:
    """Attempt after attempt; an API server that does not answer is no reason to end."""
    while True:
        try:
            if await election.hold(cluster, datetime.now(UTC), time.monotonic()) is wanted:
                return
        except ClusterError as error:
            log.warning("Lease not renewed", error=str(error))
        await asyncio.sleep(election.seconds / _ATTEMPTS)


async def _cancelled(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
