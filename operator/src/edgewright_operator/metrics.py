"""The operator's Prometheus metrics; labels come from closed sets, models and nodes.

What is known of each node is read when it is scraped: 10,000 nodes cost no memory, a deleted one leaves no series.
"""

import time
from collections.abc import Callable, Iterable

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from edgewright_operator.decide import Decision
from edgewright_operator.facts import ModelFacts
from edgewright_operator.fleet import Fleet

RECONCILE = Histogram("edgewright_reconcile_seconds", "Seconds of deciding one model.")
ROLLBACKS = Counter("edgewright_rollbacks_total", "Rollouts that were sent back.", ["reason"])
NODES = Gauge("edgewright_nodes", "Selected nodes by state.", ["model", "state"])
WAVE = Gauge("edgewright_rollout_wave", "Wave that the rollout is in, from 0.", ["model"])
_STATES = ("live", "updating", "failed", "offline")


def decided(model: ModelFacts, decision: Decision) -> None:
    """What one model's decision says of its nodes."""
    if decision.status.counts is not None:
        for state in _STATES:
            NODES.labels(model.key, state).set(getattr(decision.status.counts, state))
    if decision.status.wave is not None:
        WAVE.labels(model.key).set(decision.status.wave.index)


def forgotten(key: str) -> None:
    """A deleted model leaves no series behind."""
    for state in _STATES:
        NODES.remove_by_labels({"model": key, "state": state})
    WAVE.remove_by_labels({"model": key})


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
