"""The operator's Prometheus metrics; labels come from closed sets, models and nodes.

What is known of each node is read when it is scraped: 10,000 nodes cost no memory, a deleted one leaves no series.
"""

import time
from collections.abc import Callable, Iterable

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from edgewright_contract.compressedmodel_status import GateStatus, Verdict
from edgewright_contract.conditions import ConditionStatus, ConditionType
from edgewright_operator.decide import Decision
from edgewright_operator.facts import ModelFacts
from edgewright_operator.fleet import Fleet

RECONCILE = Histogram("edgewright_reconcile_seconds", "Seconds of deciding one model.")
ROLLBACKS = Counter("edgewright_rollbacks_total", "Rollouts that were sent back.", ["reason"])
NODES = Gauge("edgewright_nodes", "Selected nodes by state.", ["model", "state"])
WAVE = Gauge("edgewright_rollout_wave", "Wave that the rollout is in, from 0.", ["model"])
CONDITION = Gauge("edgewright_condition", "Whether the condition of a CompressedModel is true.", ["model", "state"])
GATE_VALUE = Gauge("edgewright_gate_value", "What a check of the current gate measured.", ["model", "check"])
GATE_LIMIT = Gauge("edgewright_gate_limit", "The limit of a check of the current gate.", ["model", "check"])
VERDICTS = Counter("edgewright_gate_verdicts_total", "Verdicts that gates came to.", ["verdict"])
_STATES = {"live": "live", "updating": "updating", "failed": "failed", "offline": "offline", "neverSeen": "never_seen"}
"""Label, spelled as in status.counts → field of Counts."""
_CONDITIONS = (ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED, ConditionType.DEGRADED)


def decided(model: ModelFacts, decision: Decision) -> None:
    """What one model's decision says of its nodes."""
    if decision.status.counts is not None:
        for state, field in _STATES.items():
            NODES.labels(model.key, state).set(getattr(decision.status.counts, field))
    if decision.status.wave is not None:
        WAVE.labels(model.key).set(decision.status.wave.index)
    true = {found.type for found in decision.status.conditions if found.status is ConditionStatus.TRUE}
    for kind in _CONDITIONS:
        CONDITION.labels(model.key, kind).set(kind in true)
    _gate(model.key, model.status.gate, decision.status.gate)


def _gate(key: str, before: GateStatus | None, now: GateStatus | None) -> None:
    for gauge in (GATE_VALUE, GATE_LIMIT):
        gauge.remove_by_labels({"model": key})
    for verdict in Verdict:
        VERDICTS.labels(verdict)  # a counter that begins at zero, so that the first verdict is an increase
    if now is None:
        return
    if before is None or before.verdict is not now.verdict:
        VERDICTS.labels(now.verdict).inc()
    for check in now.checks:
        GATE_LIMIT.labels(key, check.name).set(check.limit)
        if check.value is not None:
            GATE_VALUE.labels(key, check.name).set(check.value)


def forgotten(key: str) -> None:
    """A deleted model leaves no series behind."""
    for gauge in (NODES, WAVE, CONDITION, GATE_VALUE, GATE_LIMIT):
        gauge.remove_by_labels({"model": key})


class NodeMetrics(Collector):
    """Figures of each node, made from the watched objects at the moment of a scrape."""

    def __init__(self, fleet: Fleet, now: Callable[[], float] = time.time) -> None:
        self._fleet = fleet
        self._now = now

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Scraped from the metrics server's own thread, so the views are copied first."""
        age = GaugeMetricFamily(
            "edgewright_node_heartbeat_age_seconds", "Age of a node's last heartbeat.", labels=["node"]
        )
        p95 = GaugeMetricFamily(
            "edgewright_node_inference_p95_seconds", "95th percentile that a node reports.", labels=["model", "node"]
        )
        now, leases = self._now(), dict(self._fleet.leases.items)
        for name, node in list(self._fleet.edge_nodes.items.items()):
            if name in leases and (renewed := leases[name].renewed) is not None:
                age.add_metric([name], now - renewed.timestamp())
            for entry in node.models:
                if entry.figures is not None and entry.figures.samples:
                    p95.add_metric([entry.name, name], entry.figures.p95_microseconds / 1e6)
        return age, p95
