"""What the holder of the Lease does until it ends: watch, mirror the Nodes, reconcile every CompressedModel."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2
import structlog

from edgewright_operator import metrics
from edgewright_operator.api import ClusterError
from edgewright_operator.cluster import Cluster
from edgewright_operator.fleet import Fleet, key_of
from edgewright_operator.mirror import Mirror
from edgewright_operator.mlflow import MlflowRegistry
from edgewright_operator.pacing import Backoff
from edgewright_operator.polling import Polling
from edgewright_operator.promql import Promql
from edgewright_operator.reconcile import Reconciler
from edgewright_operator.settings import Settings
from edgewright_operator.source import Gateway
from edgewright_operator.worklist import Worklist

log = structlog.get_logger()

Follow = Callable[[Callable[[dict[str, Any], bool], None]], Coroutine[Any, Any, None]]

LISTING_SECONDS = 30.0
"""How often the CompressedModels, which are few, are listed besides: what kopf missed is seen soon."""
NODES_KEY = "nodes"
"""Key of the mirror in the worklist; keys of models hold a slash."""


@dataclass(slots=True)
class Operator:
    """The parts of one process, wired."""

    fleet: Fleet
    worklist: Worklist
    reconciler: Reconciler
    mirror: Mirror
    cluster: Cluster
    settings: Settings

    async def run(self, group: asyncio.TaskGroup, follow: Follow | None) -> None:
        """Begin everything in `group`; returns once all is seen and the first rounds are under way."""
        for watched in self.fleet.watches():
            group.create_task(watched.run(), name=f"watch {watched.path}")
        for watched in self.fleet.watches():
            await watched.synced.wait()
        group.create_task(self._listed(), name="list CompressedModels")
        if follow is not None:
            group.create_task(follow(self._seen), name="raw events")
        self.worklist.wake(NODES_KEY)

    async def work(self, key: str) -> None:
        """One round of a key."""
        if key == NODES_KEY:
            await self.mirror.round()
            return
        await self.reconciler.model(key, datetime.now(UTC), time.monotonic())
        if key not in self.fleet.wishes.items:
            metrics.forgotten(key)
            self.worklist.forget(key)

    def _seen(self, item: dict[str, Any], gone: bool) -> None:
        if gone:
            self.fleet.wishes.gone(key_of(item))
        else:
            self.fleet.wishes.seen(item)

    async def _listed(self) -> None:
        """Level-triggered: whatever events were missed, each resync sees what is there."""
        backoff = Backoff()
        while True:
            try:
                self.fleet.wishes.replace(await self.cluster.compressed_models())
                backoff.worked()
                await asyncio.sleep(min(LISTING_SECONDS, self.settings.resync_seconds))
            except ClusterError as error:
                log.warning("CompressedModels not listed", error=str(error))
                await asyncio.sleep(backoff.failed())


async def act(
    cluster: Cluster,
    registry: MlflowRegistry,
    gateway: Gateway,
    settings: Settings,
    follow: Follow | None = None,
    show: Callable[[Fleet], None] | None = None,
) -> None:
    """Act until cancelled.

    `follow` hands over raw events of CompressedModels (none: listing alone finds them); `show` is given the fleet.
    """
    async with httpx2.AsyncClient(timeout=10, trust_env=False) as client, asyncio.TaskGroup() as group:
        promql = Promql(settings.prometheus_url, client)
        operator = _assembled(cluster, registry, gateway, settings, group, promql)
        if show is not None:
            show(operator.fleet)
        await operator.run(group, follow)


def _assembled(
    cluster: Cluster,
    registry: MlflowRegistry,
    gateway: Gateway,
    settings: Settings,
    group: asyncio.TaskGroup,
    promql: Promql,
) -> Operator:
    """The parts, wired; nothing runs yet."""

    async def work(key: str) -> None:
        await operator.work(key)

    worklist = Worklist(work, settings.interval, group)
    fleet = Fleet(cluster.api, worklist.wake, lambda: worklist.wake(NODES_KEY), settings.resync_seconds)
    polling = Polling(registry, gateway, settings.poll_seconds, group, worklist.wake)
    reconciler = Reconciler(cluster, fleet, polling, settings, promql=promql)
    operator = Operator(fleet, worklist, reconciler, Mirror(cluster, fleet), cluster, settings)
    return operator
