"""A release on its way through the waves: expose, soak, judge, go on, wait, pause, promote or condemn. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgewright_contract import names
from edgewright_contract.compressedmodel import OnFailure
from edgewright_contract.compressedmodel_status import (
    CompressedModelStatus,
    Outcome,
    Paused,
    ReleaseRef,
    Verdict,
    WaveStatus,
)
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import AssignedModel
from edgewright_contract.quantities import seconds
from edgewright_contract.timestamps import rfc3339
from edgewright_operator import admission, baselines, gates, history, measure, quarantine, report, rollback, waves
from edgewright_operator.decision import Decision, Event, Round
from edgewright_operator.facts import ModelFacts, NodeFacts, ReleaseFacts
from edgewright_operator.gates import Judgment
from edgewright_operator.measure import Measuring
from edgewright_operator.report import Standing

CHECKPOINT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Field:
    """The nodes of one round in the order of exposure, and what is known of the release on them."""

    ordered: Sequence[NodeFacts]
    measuring: Measuring
    judged: Judgment
    late: Sequence[NodeFacts]

    @property
    def aside(self) -> set[str]:
        """Exposed nodes that are not waited for: others are asked in their place."""
        return {one.name for one in self.judged.against} | {node.name for node in self.late}


@dataclass(frozen=True, slots=True)
class Step:
    """Where the rollout is after this round."""

    wave: WaveStatus
    standing: Standing
    moves: Mapping[str, AssignedModel]
    live: bool = False
    passed: bool = False
    event: Event | None = None


def advance(now: Round, status: CompressedModelStatus, release: ReleaseFacts) -> Decision:
    """One round of a rollout that is under way."""
    now, status = _resumed(now, status)
    if status.paused is not None:
        return condemned(now, status) or _held(now, status, status.paused)
    field, status = _seen(now, status, release)
    if not any(node.reachable for node in now.nodes):
        return stand(now, status, Standing(Reason.NODES_OFFLINE, "no selected node is reachable", reconciling=True))
    if not field.ordered:
        classes = sorted(field.measuring.classes.values(), key=lambda one: one.name)
        said = "; ".join(f"class {one.name}: {one.choice.reason}" for one in classes)
        return stand(now, status, Standing(Reason.NO_VARIANT_FITS, said, stalled=True))
    if field.judged.gate.verdict is Verdict.FAIL:
        return _failed(now, status, history.ref(release), field.judged)
    step = _step(now, status, release, field)
    status = status.model_copy(update={"wave": step.wave})
    if step.passed or step.event is not None:  # what let it go on stands there, not what was written an interval ago
        status = status.model_copy(update={"gate": field.judged.gate.model_copy(update={"at": rfc3339(now.now)})})
    if step.passed:
        return _promoted(now, status, step)
    if step.live and field.judged.gate.verdict is not Verdict.PASS and _overdue(now):
        return _paused(now, status, step.standing.reason, step.standing.message)
    moves: dict[str, AssignedModel | None] = {**field.measuring.requests, **step.moves}
    # a release that is older than what a node has needs a permit, also where it goes by waves
    permits = rollback.permits_for(now.model, now.nodes, step.moves, history.ref(release))
    against = {one.name: (one.reason, one.message) for one in field.judged.against}
    against |= {node.name: (str(Reason.NODE_DEADLINE), "neither live nor refused") for node in field.late}
    done = report.summarized(status, now.model, now.nodes, step.standing, now.now, against)
    return Decision(done, moves, (step.event,) if step.event else (), step.live, permits)


def stand(
    now: Round,
    status: CompressedModelStatus,
    standing: Standing,
    assignments: Mapping[str, AssignedModel | None] | None = None,
    permits: Mapping[str, rollback.PermitWish] | None = None,
    events: tuple[Event, ...] = (),
) -> Decision:
    """The decision that only reports, beside assignments that are due whatever the rollout does."""
    if status.wave is not None and status.release is not None:
        left = set(assignments or {})
        manifest = status.release.manifest
        count = sum(node.assigned_manifest() == manifest and node.name not in left for node in now.nodes)
        wave = status.wave.model_copy(update={"exposed": count, "size": max(status.wave.size, count)})
        status = status.model_copy(update={"wave": wave})
    done = report.summarized(status, now.model, now.nodes, standing, now.now)
    return Decision(done, assignments or {}, events, False, permits or {})


def _seen(now: Round, status: CompressedModelStatus, release: ReleaseFacts) -> tuple[Field, CompressedModelStatus]:
    """Order the nodes, choose for their classes, judge those that are exposed."""
    model, manifest = now.model, release.manifest
    good = status.last_good.manifest if status.last_good else None
    ordered = waves.order(now.nodes, model.key, manifest, good)
    measuring = measure.chosen(model, release, ordered, now.now)
    before = baselines.of_classes(now.nodes, manifest, status.hardware_classes)
    status = status.model_copy(update={"hardware_classes": report.classes(ordered, measuring, before)})
    unfit = {one.name for one in measuring.classes.values() if not one.waiting and one.choice.variant is None}
    fit = [node for node in ordered if node.hardware_class not in unfit or node.assigned_manifest() == manifest]
    exposed, judged = _judged(model, fit, manifest, before)
    interval = model.spec.rollout.gates.interval
    written = report.gate(model.status.gate if status.gate else None, judged.gate, interval, now.now)
    late = [node for node in exposed if waves.late(node, manifest, model.spec.rollout, now.now)]
    return Field(fit, measuring, judged, late), status.model_copy(update={"gate": written})


def _judged(
    model: ModelFacts, nodes: Sequence[NodeFacts], manifest: str, before: Mapping[str, baselines.Baseline]
) -> tuple[list[NodeFacts], Judgment]:
    """The exposed ones among the nodes that can be heard, and what they say of the release."""
    reachable = [node for node in nodes if node.reachable]
    exposed = [node for node in reachable if node.assigned_manifest() == manifest]
    return exposed, gates.judge(exposed, model.spec.rollout.gates, manifest, before, model.prometheus, len(reachable))


def _step(now: Round, status: CompressedModelStatus, release: ReleaseFacts, field: Field) -> Step:
    rollout, wave = now.model.spec.rollout, status.wave
    assert wave is not None  # noqa: S101 - history.begun set it
    index, since, soaked = min(wave.index, len(rollout.waves) - 1), wave.since, now.soaked
    if wave.size == 0:
        if hold := _unready(now, release, field):
            return Step(wave.model_copy(update={"of": len(rollout.waves)}), hold, {})
        since = rfc3339(now.now)
    stuck = _stuck(now, release, field)
    live, heard = _live(now, field, release.manifest, index, stuck=stuck)
    passed = live and soaked >= seconds(rollout.soak) and field.judged.gate.verdict is Verdict.PASS
    event = hold = None
    if passed and index + 1 < len(rollout.waves):
        passed = False
        hold = admission.withheld(now.model, release, index + 1, now.now)
        if hold is None:
            said = f"{_named(release)}: wave {index + 1} of {len(rollout.waves)} passed, {heard} nodes live"
            event = Event(Reason.ROLLING_OUT, said)
            index, since, soaked, live = index + 1, rfc3339(now.now), 0.0, False
    size = _size(now, field, index, stuck=stuck)
    is_open = admission.is_open(rollout.window, now.now)
    moves = _moves(now, release, field, size) if is_open and not stuck else {}
    exposed = waves.exposed(now.nodes, release.manifest, moves)
    checkpoint = int(soaked // CHECKPOINT_SECONDS) * CHECKPOINT_SECONDS
    after = WaveStatus(
        index=index,
        of=len(rollout.waves),
        size=max(size, exposed),
        exposed=exposed,
        since=since,
        soak_elapsed_seconds=checkpoint,
    )
    where = f"{_named(release)}: wave {index + 1} of {after.of}, {exposed} of {after.size} nodes exposed"
    standing = hold or _standing(now, field, where, live=live, stuck=stuck, is_open=is_open, soaked=soaked)
    return Step(after, standing, moves, live, passed, event)


def _unready(now: Round, release: ReleaseFacts, field: Field) -> Standing | None:
    """Why the first wave does not begin yet."""
    waiting = [one for one in field.measuring.classes.values() if one.waiting]
    if waiting:
        said = "; ".join(f"class {one.name}: {one.choice.reason}" for one in waiting[:5])
        deadline = now.model.spec.selection.deadline
        said = f"{_named(release)}: {said}; after {deadline} it goes on with FP32"
        return Standing(Reason.MEASURING, said, reconciling=True)
    return admission.withheld(now.model, release, 0, now.now)


def _size(now: Round, field: Field, index: int, *, stuck: bool) -> int:
    aside = sum(node.name in field.aside for node in field.ordered)
    return waves.size(now.model.spec.rollout.waves, index, field.ordered, 0 if stuck else aside)


def _live(now: Round, field: Field, manifest: str, index: int, *, stuck: bool) -> tuple[bool, int]:
    """Whether all due nodes that can be heard and are waited for serve it; silence is no evidence."""
    due = field.ordered[: _size(now, field, index, stuck=stuck)]
    heard = [node for node in due if node.reachable and node.name not in field.aside]
    return bool(heard) and all(node.serves(manifest) for node in heard), len(heard)


def _stuck(now: Round, release: ReleaseFacts, field: Field) -> bool:
    """Whether more nodes are late than broken ones explain, or so many that nobody else can be moved."""
    late, exposed = len(field.late), field.judged.gate.checks[0].samples
    if not late:
        return False
    if late >= sum(node.reachable for node in field.ordered) or gates.crowd(late, exposed + late):
        return True
    return waves.blocked(now.model.spec.rollout, release.manifest, field.ordered, now.now)


def _moves(now: Round, release: ReleaseFacts, field: Field, size: int) -> dict[str, AssignedModel]:
    due = [node for node in field.ordered[:size] if node.name not in field.aside]
    return waves.moves(now.model, release, due, field.ordered, field.measuring, now.now)


def _standing(
    now: Round, field: Field, where: str, *, live: bool, stuck: bool, is_open: bool, soaked: float
) -> Standing:
    rollout, judged = now.model.spec.rollout, field.judged
    if stuck:
        said = f"{where}: {len(field.late)} nodes not live within {rollout.node_deadline}, {field.late[0].name} first"
        return Standing(Reason.NODE_DEADLINE, f"{said}: nobody else is moved until they are", stalled=True)
    if live and soaked < seconds(rollout.soak):
        return Standing(Reason.SOAKING, f"{where}: all live, soak of {rollout.soak} runs", reconciling=True)
    if live and judged.gate.verdict is not Verdict.PASS:
        error = judged.gate.verdict is Verdict.ERROR
        reason = Reason.GATE_ERROR if error else Reason.GATE_INCONCLUSIVE
        said = f"{where}: waits for evidence, pauses {rollout.gates.deadline} after its soak"
        return Standing(reason, f"{said}: {judged.message}", reconciling=True)
    if not live and not is_open:
        return admission.closed(rollout.window, where)
    asked = f"; {judged.message}" if judged.against else ""
    return Standing(Reason.ROLLING_OUT, where + asked, reconciling=True)


def _named(release: ReleaseFacts) -> str:
    """How a person finds it again: two rollouts may follow each other within minutes."""
    return f"version {release.release.version}"


def condemned(now: Round, status: CompressedModelStatus) -> Decision | None:
    """The end of a rollout that stands still and fails: pause or absent source bar the way on, not the way back."""
    target, spec = status.release, now.model.spec.rollout
    if target is None or status.wave is None or spec.on_failure is OnFailure.PAUSE:
        return None
    if target == status.last_good or quarantine.holds(status, target.manifest):
        return None
    before = baselines.of_classes(now.nodes, target.manifest, status.hardware_classes)
    _, judged = _judged(now.model, now.nodes, target.manifest, before)
    if judged.gate.verdict is not Verdict.FAIL:
        return None
    gate = report.gate(status.gate, judged.gate, spec.gates.interval, now.now)
    return _failed(now, status.model_copy(update={"gate": gate, "paused": None}), target, judged)


def _failed(now: Round, status: CompressedModelStatus, target: ReleaseRef, judged: Judgment) -> Decision:
    """The gate failed: condemned and sent back at once, or held for a person."""
    said = f"version {target.version}: {judged.message}"
    if now.model.spec.rollout.on_failure is OnFailure.PAUSE:
        return _paused(now, status, Reason.PAUSED, said)
    status = history.ended(status, Outcome.FAILED, Reason.GATE_FAILED, now.now)
    status = quarantine.condemned(status, target.manifest, judged.cause, now.now)
    away = rollback.retreat(now.model, status, now.nodes, now.now)
    good = f"version {status.last_good.version}" if status.last_good else _elsewhere(away)
    going = f"{len(away.assignments)} nodes go back to {good}"
    back = Event(Reason.ROLLING_BACK, f"version {target.version}: {going}", warning=True)
    standing = Standing(Reason.GATE_FAILED, f"{said}; {going}", stalled=True)
    return stand(now, status, standing, away.assignments, away.permits, (back,))


def _elsewhere(away: rollback.Retreat) -> str:
    """Where nodes go while no release is good yet: to what each served before, or to nothing."""
    kept = sum(entry is not None for entry in away.assignments.values())
    none = len(away.assignments) - kept
    parts = [f"what they served before ({kept})"] if kept else []
    return " and ".join([*parts, f"no model: none was good before ({none})"] if none or not kept else parts)


def _promoted(now: Round, status: CompressedModelStatus, step: Step) -> Decision:
    status = history.ended(status, Outcome.PROMOTED, Reason.ROLLED_OUT, now.now)
    good = {"last_good": status.release, "last_good_variants": report.variants(status)}
    status = status.model_copy(update=good)
    version = status.release.version if status.release else 0
    said = f"version {version} is live on every reachable node"
    done = report.summarized(status, now.model, now.nodes, Standing(Reason.ROLLED_OUT, said, ready=True), now.now)
    return Decision(done, dict(step.moves), soaking=True)


def _paused(now: Round, status: CompressedModelStatus, reason: Reason, message: str) -> Decision:
    held = Paused(reason=reason, message=message[:512], since=rfc3339(now.now), generation=now.model.generation)
    return _held(now, status.model_copy(update={"paused": held}), held)


def _held(now: Round, status: CompressedModelStatus, held: Paused) -> Decision:
    said = f"{held.message}; go on with `kubectl edgewright resume`, or go back with `kubectl edgewright rollback`"
    return stand(now, status, Standing(Reason(held.reason), said, stalled=True))


def _resumed(now: Round, status: CompressedModelStatus) -> tuple[Round, CompressedModelStatus]:
    """A pause ends by the annotation that names it, or by an edit of the spec; the wave's clock begins anew."""
    held = status.paused
    if held is None or status.wave is None:
        return now, status
    if now.model.annotations.get(names.ANNOTATION_RESUME) != held.since and held.generation == now.model.generation:
        return now, status
    wave = status.wave.model_copy(update={"since": rfc3339(now.now), "soak_elapsed_seconds": 0})
    return replace(now, soaked=0.0), status.model_copy(update={"paused": None, "wave": wave})


def _overdue(now: Round) -> bool:
    rollout = now.model.spec.rollout
    return now.soaked >= seconds(rollout.soak) + seconds(rollout.gates.deadline)
