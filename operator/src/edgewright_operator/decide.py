"""The decision: from observed facts and the time to assignments and a status. Pure; deciding twice changes nothing.

What it sees decides it: an operator that was killed in mid-rollout, or a spec edited back and forth, ends as if it had
been so from the start.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from edgewright_contract import names
from edgewright_contract.compressedmodel_status import CompressedModelStatus, Outcome, WaveStatus
from edgewright_contract.conditions import ConditionType, Reason
from edgewright_contract.edgenode import AssignedModel
from edgewright_operator import (
    admission,
    baselines,
    history,
    measure,
    orphans,
    pins,
    quarantine,
    report,
    rollback,
    rollout,
    waves,
)
from edgewright_operator.decision import Decision, Event, Round
from edgewright_operator.facts import ModelFacts, NodeFacts, ReleaseFacts, SourceProblem
from edgewright_operator.report import Standing

__all__ = ["Decision", "Event", "decide"]


def decide(
    model: ModelFacts,
    release: ReleaseFacts | SourceProblem,
    nodes: Sequence[NodeFacts],
    now: datetime,
    soaked: float = 0.0,
) -> Decision:
    """One step of the rollout.

    nodes: the selected ones, and those that have the model without being selected any more. soaked: seconds that the
    current wave has soaked in this process, its checkpoint included.
    """
    selected = [node for node in nodes if node.selected]
    decision = _decided(Round(model, selected, now, soaked), release)
    if not model.spec.suspend:
        left: dict[str, AssignedModel | None] = {node.name: None for node in nodes if not node.selected}
        tended = orphans.adopted(model, selected)
        decision = replace(decision, assignments={**left, **tended, **decision.assignments})
    return replace(decision, events=(*decision.events, *_turned(model.status, decision.status)))


def _decided(now: Round, source: ReleaseFacts | SourceProblem) -> Decision:
    model = now.model
    status = quarantine.freed(model)
    if model.spec.suspend:
        said = "spec.suspend is true: nothing moves until `kubectl edgewright resume`"
        return rollout.stand(now, status, Standing(Reason.SUSPENDED, said, reconciling=True))
    away = rollback.retreat(model, status, now.nodes, now.now)
    found = admission.misplaced(model.spec.rollout.window) or pins.pinned(status, source)
    if isinstance(found, SourceProblem):
        if bad := rollout.condemned(now, status):
            return bad
        again = rollback.renewals(status, now.nodes, now.now)
        due, permits = {**again.assignments, **away.assignments}, {**again.permits, **away.permits}
        return rollout.stand(now, status, Standing(found.reason, found.message, stalled=True), due, permits)
    if not now.nodes:
        said = (
            f"no EdgeNode matches spec.nodeSelector and annotation {names.ANNOTATION_NODE_SELECTOR} of namespace"
            f" {model.namespace}, which limits its reach (without it a namespace has no nodes, unless the operator is"
            f" single-tenant); a Node has an EdgeNode once it is labelled {names.LABEL_AGENT}=true"
        )
        return rollout.stand(now, status, Standing(Reason.NO_NODES, said, reconciling=True))
    decision = _with_release(now, status, found)
    again = rollback.renewals(status, now.nodes, now.now)
    return replace(
        decision,
        assignments={**again.assignments, **away.assignments, **decision.assignments},
        permits={**again.permits, **_kept(away, decision), **decision.permits},
    )


def _with_release(now: Round, status: CompressedModelStatus, release: ReleaseFacts) -> Decision:
    target = history.ref(release)
    status = history.begun(status, target, len(now.model.spec.rollout.waves), now.now)
    if entry := quarantine.holds(status, release.manifest):
        command = f"kubectl edgewright unquarantine {now.model.name} -n {now.model.namespace}"
        stays = f", version {status.last_good.version} stays" if status.last_good else ""
        said = (
            f"version {target.version} failed at {entry.since} ({entry.reason}){stays}; `{command}` lets it try again"
        )
        return rollout.stand(now, status, Standing(Reason.QUARANTINED, said, stalled=True))
    if rollback.wished(status, target, now.nodes):
        return _returned(now, status, release)
    if status.last_good == target:
        return _settled(now, status, release)
    return rollout.advance(now, status, release)


def _returned(now: Round, status: CompressedModelStatus, release: ReleaseFacts) -> Decision:
    """An older release that was good here is asked for again: everybody goes back at once, exposed nodes first."""
    target = history.ref(release)
    leaving = rollback.newer_than(now.nodes, target)
    away = rollback.back(now.model, leaving, now.nodes, target, now.now)
    missing = [node for node in leaving if node.name not in away.assignments]
    ordered = waves.order(now.nodes, now.model.key, release.manifest)
    measuring = measure.chosen(now.model, release, ordered, now.now, patient=False)
    moves = waves.moves(now.model, release, missing, now.nodes, measuring, now.now)
    permits = rollback.permits_for(now.model, missing, moves, target)
    status = history.ended(status, Outcome.PROMOTED, Reason.ALIAS_MOVED_BACK, now.now)
    good = {"last_good": target, "last_good_variants": [], "gate": None, "paused": None}
    status = status.model_copy(update=good)
    status = _whole(now, status)
    said = f"{len(leaving)} nodes go back to version {target.version}"
    standing = Standing(Reason.ALIAS_MOVED_BACK, said, reconciling=True)
    done = report.summarized(status, now.model, now.nodes, standing, now.now)
    return Decision(done, {**moves, **away.assignments}, permits={**permits, **away.permits})


def _settled(now: Round, status: CompressedModelStatus, release: ReleaseFacts) -> Decision:
    """The release is good here. Nodes that come, come back or lost it catch up, each class behind its first node."""
    model, manifest = now.model, release.manifest
    ordered = waves.order(now.nodes, model.key, manifest)
    measuring = measure.chosen(model, release, ordered, now.now)
    before = baselines.of_classes((), manifest, status.hardware_classes)
    status = status.model_copy(update={"hardware_classes": report.classes(ordered, measuring, before)})
    running = report.variants(status, status.last_good_variants)
    status = status.model_copy(update={"last_good_variants": running})
    due = waves.proven_first(ordered, manifest)
    moves = waves.moves(model, release, due, ordered, measuring, now.now)
    if not admission.is_open(model.spec.rollout.window, now.now):
        moves = {}
    heard = [node for node in ordered if node.reachable and not node.failed(manifest)]
    behind = sum(not node.serves(manifest) for node in heard)
    standing = _settling(status, behind, sum(node.failed(manifest) for node in ordered), anybody=bool(heard))
    done = report.summarized(_whole(now, status, len(moves)), model, now.nodes, standing, now.now)
    assignments: dict[str, AssignedModel | None] = {**measuring.requests, **moves}
    return Decision(done, assignments)


def _settling(status: CompressedModelStatus, behind: int, failed: int, *, anybody: bool) -> Standing:
    version = status.release.version if status.release else 0
    returned = bool(status.history) and status.history[0].reason == Reason.ALIAS_MOVED_BACK
    if not anybody:
        said = f"version {version} is good, and no selected node is reachable"
        return Standing(Reason.NODES_OFFLINE, said, reconciling=True)
    if behind:
        reason = Reason.ALIAS_MOVED_BACK if returned else Reason.ROLLING_OUT
        return Standing(reason, f"version {version} is good; {behind} nodes still get it", reconciling=True)
    aside = f", except {failed} that refused it" if failed else ""
    reason = Reason.ROLLED_BACK if returned else Reason.ROLLED_OUT
    return Standing(reason, f"version {version} is live on every reachable node{aside}", ready=True)


def _whole(now: Round, status: CompressedModelStatus, moving: int = 0) -> CompressedModelStatus:
    """The last wave, which all nodes belong to."""
    wave = status.wave
    assert wave is not None and status.release is not None  # noqa: S101, PT018 - history.begun set both
    manifest, last = status.release.manifest, len(now.model.spec.rollout.waves)
    count = sum(node.assigned_manifest() == manifest for node in now.nodes) + moving
    size = sum(node.reachable or node.assigned_manifest() == manifest for node in now.nodes)
    whole = WaveStatus(
        index=last - 1,
        of=last,
        size=max(size, count),
        exposed=count,
        since=wave.since,
        soak_elapsed_seconds=wave.soak_elapsed_seconds,
    )
    return status.model_copy(update={"wave": whole})


def _kept(away: rollback.Retreat, decision: Decision) -> dict[str, rollback.PermitWish]:
    """Permits of the retreat, except for nodes that go elsewhere anyway."""
    return {name: wish for name, wish in away.permits.items() if name not in decision.assignments}


def _turned(before: CompressedModelStatus, after: CompressedModelStatus) -> list[Event]:
    """An Event when the reason of where the rollout stands changed."""
    reasons = [{entry.type: entry for entry in status.conditions} for status in (before, after)]
    old, new = (found.get(ConditionType.READY) for found in reasons)
    if new is None or (old is not None and old.reason == new.reason):
        return []
    stalled = reasons[1].get(ConditionType.STALLED)
    return [Event(Reason(new.reason), new.message, warning=stalled is not None and stalled.status == "True")]
