"""The operator's Prometheus metrics: what a round saw and did; labels come from closed sets, models and nodes."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from prometheus_client import Counter, Gauge, Histogram

from edgewright_operator.decide import Decision
from edgewright_operator.facts import ModelFacts, NodeFacts

RECONCILE = Histogram("edgewright_reconcile_seconds", "Seconds of one round over all models.")
REQUESTS = Counter("edgewright_api_requests_total", "Requests to the API server.", ["outcome"])
ROLLBACKS = Counter("edgewright_rollbacks_total", "Rollouts that were sent back.", ["reason"])
NODES = Gauge("edgewright_nodes", "Selected nodes by state.", ["model", "state"])
WAVE = Gauge("edgewright_rollout_wave", "Wave that the rollout is in, from 0.", ["model"])
HEARTBEAT = Gauge("edgewright_node_heartbeat_age_seconds", "Age of a node's last heartbeat.", ["node"])
P95 = Gauge("edgewright_node_inference_p95_seconds", "95th percentile that a node reports.", ["model", "node"])


def begin_round(beats: Mapping[str, datetime], nodes: Sequence[str], now: datetime) -> None:
    """Forget what the last round saw, so that a deleted node or model leaves no series behind."""
    for gauge in (NODES, WAVE, P95, HEARTBEAT):
        gauge.clear()
    for name in nodes:
        if name in beats:
            HEARTBEAT.labels(name).set((now - beats[name]).total_seconds())


def decided(model: ModelFacts, nodes: Sequence[NodeFacts], decision: Decision) -> None:
    """What one model's decision says of its nodes."""
    if decision.status.counts is not None:
        for state in ("live", "updating", "failed", "offline"):
            NODES.labels(model.key, state).set(getattr(decision.status.counts, state))
    if decision.status.wave is not None:
        WAVE.labels(model.key).set(decision.status.wave.index)
    for node in nodes:
        if node.status is not None and node.status.figures is not None and node.status.figures.samples:
            P95.labels(model.key, node.name).set(node.status.figures.p95_microseconds / 1e6)
