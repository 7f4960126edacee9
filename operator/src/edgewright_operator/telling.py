"""Events, for people: each is told once and in order, a round later where the API server could not take it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog

from edgewright_contract.conditions import Reason
from edgewright_operator import metrics
from edgewright_operator.api import ClusterError, NotLeading, Unavailable
from edgewright_operator.cluster import Cluster
from edgewright_operator.decision import Event

log = structlog.get_logger()

Object = dict[str, Any]

KEPT = 20
"""Newest Events of a model that wait for an API server in trouble."""


@dataclass(frozen=True, slots=True)
class _Told:
    """An Event, about what, and when it was decided."""

    about: Object
    event: Event
    at: datetime


@dataclass(slots=True)
class Telling:
    """`untold`: of each model, what the API server could not take yet; a process that ends takes it along."""

    cluster: Cluster
    untold: dict[str, list[_Told]] = field(default_factory=dict)

    async def tell(self, key: str, item: Object, events: Sequence[Event], now: datetime) -> None:
        """Write what waits of the model `key`, then `events` about `item`. One that is refused is logged, and gone."""
        for event in events:
            if event.reason is Reason.GATE_FAILED:
                metrics.ROLLBACKS.labels(event.reason).inc()
        waiting = [*self.untold.pop(key, ()), *(_Told(item, event, now) for event in events)]
        for number, one in enumerate(waiting):
            try:
                await self._write(one)
            except ClusterError as error:
                log.warning("event not written", reason=one.event.reason, message=one.event.message, error=str(error))
                if isinstance(error, Unavailable | NotLeading):
                    self.untold[key] = waiting[number:][-KEPT:]
                    return

    async def _write(self, one: _Told) -> None:
        event = one.event
        await self.cluster.create_event(one.about, event.reason, event.message, warning=event.warning, now=one.at)
