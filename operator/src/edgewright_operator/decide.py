"""The decision: from observed facts and the time to assignments and a status. Pure; deciding twice changes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from edgewright_contract import names
from edgewright_contract.compressedmodel import (
    CompressedModelStatus,
    HistoryEntry,
    OnFailure,
    Quarantined,
    ReleaseRef,
    WaveStatus,
)
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import AssignedModel, Assignment
from edgewright_contract.quantities import seconds, share_of
from edgewright_contract.timestamps import rfc3339
from edgewright_operator import pins, report, waves
from edgewright_operator.choose import Choice, choose
from edgewright_operator.facts import ModelFacts, NodeFacts, ReleaseFacts, SourceProblem
from edgewright_operator.report import Standing

CHECKPOINT_SECONDS = 60
HISTORY = 10


@dataclass(frozen=True, slots=True)
class Event:
    """One Kubernetes Event about the CompressedModel."""

    reason: Reason
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write: assignments by node (only those that change), the status, and events."""

    status: CompressedModelStatus
    assignments: Mapping[str, AssignedModel] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    soaking: bool = False
    """Whether the time until the next decision counts as soak."""


def decide(
    model: ModelFacts,
    release: ReleaseFacts | SourceProblem,
    nodes: Sequence[NodeFacts],
    now: datetime,
    soaked: float = 0.0,
) -> Decision:
    """One step of the rollout.

    nodes: the selected ones. soaked: seconds that the current wave has soaked in this process, its checkpoint included.
    """
    release = pins.pinned(model.status, release)
    if isinstance(release, SourceProblem):
        return _stand_still(model, nodes, now, release.reason, release.message)
    if model.spec.suspend:
        return _stand_still(model, nodes, now, Reason.SUSPENDED, "spec.suspend is true: nothing moves")
    if not nodes:
        return _stand_still(model, nodes, now, Reason.NO_NODES, "no EdgeNode matches spec.nodeSelector")
    status = _begun(model, release, now)
    if _quarantined(status, release.manifest):
        message = f"manifest {release.manifest} failed before; `kubectl edgewright unquarantine` frees it"
        return _rolled_back(model, status, release, nodes, now, (), Reason.QUARANTINED, message)
    choice = choose(release.release, model.spec.selection)
    if choice.variant is None:
        return _stand_still(model, nodes, now, Reason.NO_VARIANT_FITS, choice.reason)
    if failed := [node for node in nodes if node.failed(release.manifest)]:
        return _failed(model, status, release, nodes, now, failed)
    return _advance(model, status, release, choice, nodes, now, soaked)


def _begun(model: ModelFacts, release: ReleaseFacts, now: datetime) -> CompressedModelStatus:
    """The status, with a new rollout begun where the release is another than before."""
    status = _freed(model)
    target = _ref(release)
    if status.release == target and status.wave is not None:
        return status
    history = list(status.history)
    if status.release is not None and status.release != status.last_good and status.release != target:
        history = _recorded(history, status, now, "Superseded", Reason.ROLLING_OUT)
    wave = WaveStatus(
        index=0, of=len(model.spec.rollout.waves), size=0, exposed=0, since=rfc3339(now), soak_elapsed_seconds=0
    )
    return status.model_copy(update={"release": target, "wave": wave, "gate": None, "history": history})


def _freed(model: ModelFacts) -> CompressedModelStatus:
    free = model.annotations.get(names.ANNOTATION_UNQUARANTINE)
    kept = [entry for entry in model.status.quarantined if entry.manifest != free]
    return model.status.model_copy(update={"quarantined": kept})


def _advance(
    model: ModelFacts,
    status: CompressedModelStatus,
    release: ReleaseFacts,
    choice: Choice,
    nodes: Sequence[NodeFacts],
    now: datetime,
    soaked: float,
) -> Decision:
    rollout = model.spec.rollout
    if not any(node.reachable for node in nodes):
        return _stand_still(model, nodes, now, Reason.NODES_OFFLINE, "no selected node is reachable: waiting")
    ordered = waves.order(nodes, model.key, release.manifest)
    wave = status.wave
    assert wave is not None  # noqa: S101 - _begun set it
    index = min(wave.index, len(rollout.waves) - 1)
    size = waves.size(rollout.waves, index, ordered)
    due = ordered[:size]
    heard = [node for node in due if node.reachable]
    live = bool(heard) and all(node.serves(release.manifest) for node in heard)  # silence is no evidence
    passed = live and soaked >= seconds(rollout.soak)
    events: list[Event] = []
    since = wave.since
    if passed and index + 1 < len(rollout.waves):
        events.append(Event(Reason.ROLLING_OUT, f"wave {index + 1} of {len(rollout.waves)} passed: {size} nodes live"))
        index, since, soaked, live, passed = index + 1, rfc3339(now), 0.0, False, False
        size = waves.size(rollout.waves, index, ordered)
        due = ordered[:size]
    moves = _moves(model, release, choice, due, ordered)
    exposed = sum(node.assigned_manifest() == release.manifest or node.name in moves for node in nodes)
    checkpoint = int(soaked // CHECKPOINT_SECONDS) * CHECKPOINT_SECONDS
    now_wave = WaveStatus(
        index=index, of=len(rollout.waves), size=size, exposed=exposed, since=since, soak_elapsed_seconds=checkpoint
    )
    status = status.model_copy(
        update={"wave": now_wave, "hardware_classes": report.classes(ordered, choice), "gate": None}
    )
    if passed:
        return _promoted(model, status, release, nodes, now, moves, events)
    standing = _rolling(rollout.node_deadline, status, live, since, now, soaked, rollout.soak)
    if standing.reason is Reason.NODE_DEADLINE:
        moves = {}
    done = report.summarized(status, model, nodes, release.manifest, standing, now)
    return Decision(done, moves, tuple(events), soaking=live)


def _rolling(
    deadline: str, status: CompressedModelStatus, live: bool, since: str, now: datetime, soaked: float, soak: str
) -> Standing:
    wave = status.wave
    assert wave is not None  # noqa: S101 - set by the caller
    where = f"wave {wave.index + 1} of {wave.of}, {wave.exposed} of {wave.size} nodes exposed"
    if live:
        return Standing(Reason.SOAKING, f"{where}: all live, soak of {soak} runs", reconciling=True)
    if (now - datetime.fromisoformat(since)).total_seconds() > seconds(deadline) + soaked:
        return Standing(Reason.NODE_DEADLINE, f"{where}: not all live within {deadline}: paused", stalled=True)
    return Standing(Reason.ROLLING_OUT, where, reconciling=True)


def _moves(
    model: ModelFacts,
    release: ReleaseFacts,
    choice: Choice,
    due: Sequence[NodeFacts],
    population: Sequence[NodeFacts],
) -> dict[str, AssignedModel]:
    """Assignments for due nodes, as many at once as maxUnavailable allows."""
    assert choice.variant is not None  # noqa: S101 - checked by decide
    moving = sum(
        node.reachable and node.assigned_manifest() == release.manifest and not node.serves(release.manifest)
        for node in population
    )
    allowed = share_of(model.spec.rollout.max_unavailable, len(population), at_least=1) - moving
    waiting = [node for node in due if node.assigned_manifest() != release.manifest]
    live = Assignment(
        version=release.release.version,
        sequence=release.release.sequence,
        manifest=release.manifest,
        variant=choice.variant.name,
    )
    return {node.name: _assigned(model, live) for node in waiting[: max(0, allowed)]}


def _assigned(model: ModelFacts, live: Assignment) -> AssignedModel:
    return AssignedModel(name=model.key, registered_model=model.spec.source.registered_model, live=live)


def _promoted(
    model: ModelFacts,
    status: CompressedModelStatus,
    release: ReleaseFacts,
    nodes: Sequence[NodeFacts],
    now: datetime,
    moves: Mapping[str, AssignedModel],
    events: list[Event],
) -> Decision:
    target = _ref(release)
    if status.last_good != target:
        history = _recorded(list(status.history), status, now, "Promoted", Reason.ROLLED_OUT)
        status = status.model_copy(update={"last_good": target, "history": history})
        events.append(Event(Reason.ROLLED_OUT, f"version {target.version} is live on every reachable node"))
    standing = Standing(Reason.ROLLED_OUT, f"version {target.version} is live on every reachable node", ready=True)
    status = report.summarized(status, model, nodes, release.manifest, standing, now)
    return Decision(status, moves, tuple(events), soaking=True)


def _failed(
    model: ModelFacts,
    status: CompressedModelStatus,
    release: ReleaseFacts,
    nodes: Sequence[NodeFacts],
    now: datetime,
    failed: Sequence[NodeFacts],
) -> Decision:
    """A node's own veto is evidence at once: the manifest is quarantined and nobody else is exposed to it."""
    worst = failed[0]
    why = worst.status.reason if worst.status else ""
    message = f"{worst.name} refused version {release.release.version}: {why}"
    entry = Quarantined(manifest=release.manifest, reason=(why or Reason.GATE_FAILED)[:64], since=rfc3339(now))
    status = status.model_copy(
        update={
            "quarantined": [*status.quarantined, entry][-50:],
            "history": _recorded(list(status.history), status, now, "Failed", Reason.GATE_FAILED),
        }
    )
    events = (Event(Reason.GATE_FAILED, message, warning=True),)
    return _rolled_back(model, status, release, nodes, now, events, Reason.GATE_FAILED, message)


def _rolled_back(
    model: ModelFacts,
    status: CompressedModelStatus,
    release: ReleaseFacts,
    nodes: Sequence[NodeFacts],
    now: datetime,
    events: tuple[Event, ...],
    reason: Reason,
    message: str,
) -> Decision:
    """Nodes that were exposed go back to the last good release, where there is one and the policy says so."""
    back: dict[str, AssignedModel] = {}
    good = status.last_good
    if good is not None and good != _ref(release) and model.spec.rollout.on_failure is OnFailure.ROLLBACK:
        for node in nodes:
            variant = _known_variant(node, good.manifest) or _any_variant(nodes, good.manifest)
            if node.assigned_manifest() == release.manifest and variant is not None:
                live = Assignment(
                    version=good.version, sequence=good.sequence, manifest=good.manifest, variant=variant
                )
                back[node.name] = _assigned(model, live)
    standing = Standing(reason, message, stalled=True)
    return Decision(report.summarized(status, model, nodes, release.manifest, standing, now), back, events)


def _known_variant(node: NodeFacts, manifest: str) -> str | None:
    served = [node.status.live, node.status.previous] if node.status else []
    return next((entry.variant for entry in served if entry is not None and entry.manifest == manifest), None)


def _any_variant(nodes: Sequence[NodeFacts], manifest: str) -> str | None:
    found = (_known_variant(node, manifest) for node in nodes)
    return next((variant for variant in found if variant is not None), None)


def _stand_still(
    model: ModelFacts, nodes: Sequence[NodeFacts], now: datetime, reason: Reason, message: str
) -> Decision:
    target = model.status.release.manifest if model.status.release else ""
    waits = reason in (Reason.SUSPENDED, Reason.NODES_OFFLINE, Reason.NO_NODES)
    standing = Standing(reason, message, reconciling=waits, stalled=not waits)
    return Decision(report.summarized(_freed(model), model, nodes, target, standing, now))


def _quarantined(status: CompressedModelStatus, manifest: str) -> bool:
    return any(entry.manifest == manifest for entry in status.quarantined)


def _ref(release: ReleaseFacts) -> ReleaseRef:
    found = release.release
    return ReleaseRef(version=found.version, sequence=found.sequence, manifest=release.manifest)


def _recorded(
    history: list[HistoryEntry], status: CompressedModelStatus, now: datetime, outcome: str, reason: Reason
) -> list[HistoryEntry]:
    ended = status.release
    if ended is None:
        return history
    started = status.wave.since if status.wave else rfc3339(now)
    entry = HistoryEntry(
        version=ended.version,
        manifest=ended.manifest,
        started=started,
        ended=rfc3339(now),
        outcome=outcome,
        reason=reason,
    )
    return [entry, *history][:HISTORY]
