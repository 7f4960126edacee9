"""Folds what was decided and observed into the bounded status: counts, classes, worst ten and conditions. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from edgewright_contract.compressedmodel import CompressedModelStatus, Counts, HardwareClassStatus, WorstNode
from edgewright_contract.conditions import Condition, ConditionStatus, ConditionType, Reason, merged
from edgewright_contract.timestamps import rfc3339
from edgewright_operator.choose import Choice
from edgewright_operator.facts import ModelFacts, NodeFacts

WORST = 10
CLASSES = 20


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the rollout stands, in one reason and one sentence."""

    reason: Reason
    message: str
    ready: bool = False
    reconciling: bool = False
    stalled: bool = False


def summarized(
    status: CompressedModelStatus,
    model: ModelFacts,
    nodes: Sequence[NodeFacts],
    manifest: str,
    standing: Standing,
    now: datetime,
) -> CompressedModelStatus:
    """The status with counts, worst nodes and conditions of this moment."""
    counts = _counts(nodes, manifest)
    conditions = (
        _condition(ConditionType.READY, standing.ready, standing, model, now),
        _condition(ConditionType.RECONCILING, standing.reconciling, standing, model, now),
        _condition(ConditionType.STALLED, standing.stalled, standing, model, now),
        _degraded(counts, model, now),
    )
    return status.model_copy(
        update={
            "observed_generation": model.generation,
            "counts": counts,
            "worst_nodes": _worst(nodes, manifest),
            "conditions": merged(model.status.conditions, conditions),
        }
    )


def classes(nodes: Sequence[NodeFacts], choice: Choice) -> list[HardwareClassStatus]:
    """The choice for each hardware class, most nodes first."""
    found = Counter(node.hardware_class for node in nodes)
    variant = choice.variant
    return [
        HardwareClassStatus(
            name=name,
            nodes=count,
            variant=variant.name if variant else None,
            reason=choice.reason[:512],
            p95_milliseconds=variant.latency.p95_microseconds / 1000 if variant else None,
            candidates=list(choice.candidates),
        )
        for name, count in sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:CLASSES]
    ]


def _counts(nodes: Sequence[NodeFacts], manifest: str) -> Counts:
    reachable = [node for node in nodes if node.reachable]
    failed = [node for node in reachable if node.failed(manifest)]
    live = [node for node in reachable if node.serves(manifest)]
    updating = [
        node
        for node in reachable
        if node.assigned_manifest() == manifest and not node.serves(manifest) and not node.failed(manifest)
    ]
    return Counts(
        total=len(nodes),
        live=len(live),
        updating=len(updating),
        failed=len(failed),
        offline=len(nodes) - len(reachable),
    )


def _worst(nodes: Sequence[NodeFacts], manifest: str) -> list[WorstNode]:
    rows = []
    for node in nodes:
        if node.failed(manifest) and node.status is not None:
            reason, message = node.status.reason, node.status.message[:256]
            rows.append((0, WorstNode(name=node.name, state=node.status.state, reason=reason, message=message)))
        elif not node.reachable:
            rows.append((1, WorstNode(name=node.name, state="Offline")))
    return [row for _, row in sorted(rows, key=lambda pair: (pair[0], pair[1].name))[:WORST]]


def _condition(
    kind: ConditionType, holds: bool, standing: Standing, model: ModelFacts, now: datetime
) -> Condition:
    return Condition(
        type=kind,
        status=ConditionStatus.TRUE if holds else ConditionStatus.FALSE,
        reason=standing.reason,
        message=standing.message[:1024],
        last_transition_time=rfc3339(now),
        observed_generation=model.generation,
    )


def _degraded(counts: Counts, model: ModelFacts, now: datetime) -> Condition:
    trouble = Standing(
        Reason.GATE_FAILED if counts.failed else Reason.NODES_OFFLINE if counts.offline else Reason.SERVING,
        f"{counts.failed} nodes failed, {counts.offline} of {counts.total} are offline",
    )
    return _condition(ConditionType.DEGRADED, bool(counts.failed), trouble, model, now)
