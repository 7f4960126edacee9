"""Folds what was decided and observed into the bounded status: counts, classes, worst ten and conditions. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from edgewright_contract.compressedmodel_status import (
    ClassVariant,
    CompressedModelStatus,
    Counts,
    GateStatus,
    HardwareClassStatus,
    WorstNode,
)
from edgewright_contract.conditions import Condition, ConditionStatus, ConditionType, Reason, merged
from edgewright_contract.quantities import seconds
from edgewright_contract.timestamps import rfc3339
from edgewright_operator import quarantine
from edgewright_operator.baselines import Baseline
from edgewright_operator.facts import ModelFacts, NodeFacts
from edgewright_operator.measure import CLASSES, Measuring

WORST = 10
DETAILED = 3
"""Classes whose measurements are shown whole; of the others only what was chosen and its parent."""
OUTLIER = 2.0
"""A node whose p95 is so many times that of its class is one."""
_SPOKEN = (ConditionType.READY, ConditionType.DEGRADED)
"""Conditions that say something also while they are False: where it stands, and who is offline."""
_CROWD = 3
"""Nodes of a class that are needed to say what is usual in it."""


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
    standing: Standing,
    now: datetime,
    against: Mapping[str, tuple[str, str]] | None = None,
) -> CompressedModelStatus:
    """The status with counts, worst nodes and conditions of this moment; `against`: node → reason and message."""
    manifest = status.release.manifest if status.release else ""
    stopped = status.release is not None and quarantine.holds(status, status.release.manifest) is not None
    counts = _counts(nodes, manifest, stopped=stopped)
    unfit = [entry.name for entry in status.hardware_classes if entry.variant is None and not entry.measuring_since]
    conditions = (
        _condition(ConditionType.READY, standing.ready, standing, model, now),
        _condition(ConditionType.RECONCILING, standing.reconciling, standing, model, now),
        _condition(ConditionType.STALLED, standing.stalled, standing, model, now),
        _degraded(counts, unfit, model, now),
    )
    return status.model_copy(
        update={
            "observed_generation": model.generation,
            "counts": counts,
            "worst_nodes": _worst(nodes, manifest, against or {}),
            "conditions": merged(model.status.conditions, conditions),
        }
    )


def classes(
    nodes: Sequence[NodeFacts], measuring: Measuring, before: Mapping[str, Baseline]
) -> list[HardwareClassStatus]:
    """The choice for each hardware class, most nodes first."""
    ranked = sorted(measuring.classes.values(), key=lambda one: (-one.nodes, one.name))[:CLASSES]
    rows: list[HardwareClassStatus] = []
    for one in ranked:
        choice, base = one.choice, before.get(one.name, Baseline())
        mine = next((entry for entry in choice.measured if entry.variant == choice.variant), None)
        rows.append(
            HardwareClassStatus(
                name=one.name,
                nodes=one.nodes,
                variant=choice.variant,
                reason=choice.reason[: 300 if len(rows) < DETAILED else 100],
                p95_milliseconds=mine.p95_microseconds / 1000 if mine else None,
                candidates=list(choice.measured if len(rows) < DETAILED else choice.kept),
                measuring_since=one.measuring_since,
                baseline_p95_microseconds=round(base.p95_microseconds) or None,
                baseline_rss_bytes=round(base.rss_bytes) or None,
            )
        )
    return rows


def variants(status: CompressedModelStatus, before: Sequence[ClassVariant] = ()) -> list[ClassVariant]:
    """What each class runs; where nothing is chosen now, what it ran of the same release `before`."""
    ran = {entry.name: entry.variant for entry in before}
    now = {entry.name: entry.variant or ran.get(entry.name) for entry in status.hardware_classes}
    return [ClassVariant(name=name, variant=variant) for name, variant in now.items() if variant is not None]


def gate(before: GateStatus | None, found: GateStatus, interval: str, now: datetime) -> GateStatus:
    """The gate as it is written: anew once an interval or when its verdict changed, so that figures cost no writes."""
    if before is not None and before.at is not None and before.verdict is found.verdict:
        same = [check.name for check in before.checks] == [check.name for check in found.checks]
        if same and (now - datetime.fromisoformat(before.at)).total_seconds() < seconds(interval):
            return before
        if before.checks == found.checks:
            return before
    return found.model_copy(update={"at": rfc3339(now)})


def _counts(nodes: Sequence[NodeFacts], manifest: str, *, stopped: bool) -> Counts:
    """Of the release, or, once it was stopped, of what each node was sent back to."""
    live = updating = failed = offline = never = 0
    for node in nodes:
        if not node.seen:
            never += 1
        elif not node.reachable:
            offline += 1
        elif node.failed(manifest):
            failed += 1
        elif (wanted := node.assigned_manifest() if stopped else manifest) and node.serves(wanted):
            live += 1
        elif wanted and node.assigned_manifest() == wanted:
            updating += 1
    return Counts(total=len(nodes), live=live, updating=updating, failed=failed, offline=offline, never_seen=never)


def _worst(nodes: Sequence[NodeFacts], manifest: str, against: Mapping[str, tuple[str, str]]) -> list[WorstNode]:
    rows: list[tuple[int, WorstNode]] = []
    for node in nodes:
        if node.status is not None and node.failed(manifest):
            reason, message = node.status.reason, node.status.message[:120]
            rows.append((0, WorstNode(name=node.name, state=node.status.state, reason=reason, message=message)))
        elif node.name in against:
            reason, message = against[node.name]
            rows.append((1, WorstNode(name=node.name, state="Against", reason=reason[:64], message=message[:120])))
        elif not node.seen:
            rows.append((4, WorstNode(name=node.name, state="NeverSeen", message="its agent never gave a heartbeat")))
        elif not node.reachable:
            said = "no heartbeat for three intervals; it catches up when it returns"
            rows.append((3, WorstNode(name=node.name, state="Offline", reason=Reason.STALE, message=said)))
    rows += ((2, row) for row in _outliers(nodes, manifest))
    return [row for _, row in sorted(rows, key=lambda pair: (pair[0], pair[1].name))[:WORST]]


def _outliers(nodes: Sequence[NodeFacts], manifest: str) -> Iterable[WorstNode]:
    """Nodes that serve the release much slower than others of their class."""
    timed: dict[str, list[tuple[str, int]]] = {}
    for node in nodes:
        figures = node.figures(manifest)
        if figures is not None and figures.samples and figures.p95_microseconds:
            timed.setdefault(node.hardware_class, []).append((node.name, figures.p95_microseconds))
    for kind, rows in timed.items():
        usual = median(p95 for _, p95 in rows)
        for name, p95 in rows if len(rows) >= _CROWD else ():
            if p95 > OUTLIER * usual:
                said = f"p95 {p95 / 1000:.3g} ms, {usual / 1000:.3g} ms is usual in class {kind}"
                yield WorstNode(name=name, state="Outlier", reason=Reason.SLOWER_THAN_ITS_CLASS, message=said)


def _condition(kind: ConditionType, holds: bool, standing: Standing, model: ModelFacts, now: datetime) -> Condition:
    return Condition(
        type=kind,
        status=ConditionStatus.TRUE if holds else ConditionStatus.FALSE,
        reason=standing.reason,
        message=standing.message[:512] if holds or kind in _SPOKEN else "",
        last_transition_time=rfc3339(now),
        observed_generation=model.generation,
    )


def _degraded(counts: Counts, unfit: Sequence[str], model: ModelFacts, now: datetime) -> Condition:
    away = counts.offline + counts.never_seen
    said = f"{counts.failed} nodes failed, {away} of {counts.total} are offline" if counts.failed or away else ""
    if counts.failed:
        reason = Reason.GATE_FAILED
    elif unfit:
        unfitting = f"no variant fits class {', '.join(unfit[:5])}"
        reason, said = Reason.NO_VARIANT_FITS, f"{unfitting}; {said}" if said else unfitting
    else:
        reason = Reason.NODES_OFFLINE if away else Reason.SERVING
    return _condition(ConditionType.DEGRADED, bool(counts.failed or unfit), Standing(reason, said), model, now)
