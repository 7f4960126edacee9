"""Why a rollout stands where it stands, as sentences: what was decided, from which values, what comes next. Pure."""

from collections.abc import Iterator

from edgewright_contract.compressedmodel import CompressedModelSpec
from edgewright_contract.compressedmodel_status import CompressedModelStatus, Verdict
from edgewright_contract.conditions import Condition, ConditionStatus, ConditionType, Reason
from edgewright_contract.digests import short
from edgewright_contract.edgenode import AssignedModel, Figures, Hardware, ModelStatus


def model(spec: CompressedModelSpec, status: CompressedModelStatus) -> list[str]:
    """All that is known of a CompressedModel."""
    if not status.conditions:
        return ["The operator has not seen this object yet: is it running?"]
    return [
        *_conditions(status),
        f"next: {following(spec, status)}",
        *_release(status),
        *_classes(status),
        *_gate(status),
        *_nodes(status),
        *_past(status),
    ]


def standing(status: CompressedModelStatus) -> Condition | None:
    """The condition that says where the rollout stands; none before the operator saw the object."""
    return next((entry for entry in status.conditions if entry.type is ConditionType.READY), None)


def following(spec: CompressedModelSpec, status: CompressedModelStatus) -> str:
    """What happens next, and when."""
    wave, rollout = status.wave, spec.rollout
    if (ready := standing(status)) is None or wave is None:
        return "the operator decides as soon as it knows the release"
    last = wave.index + 1 >= len(rollout.waves)
    then = "the release is promoted" if last else f"wave {wave.index + 2} of {wave.of} begins"
    sentences = {
        Reason.MEASURING: f"the first wave begins once they measured, or after {spec.selection.deadline} with FP32",
        Reason.ROLLING_OUT: f"once the exposed nodes are live the soak of {rollout.soak} runs",
        Reason.SOAKING: f"after {rollout.soak} of soak ({wave.soak_elapsed_seconds} s at the last checkpoint),"
        f" and if the gate passes, {then}",
        Reason.GATE_INCONCLUSIVE: f"as soon as there are {rollout.gates.min_samples} effective samples {then};"
        f" {rollout.gates.deadline} after the soak the rollout pauses",
        Reason.GATE_ERROR: f"the check is made again each {rollout.gates.interval}; the rollout pauses"
        f" {rollout.gates.deadline} after the soak",
        Reason.WAITING_FOR_APPROVAL: "nothing, until somebody who may approve does",
        Reason.OUTSIDE_WINDOW: "nothing, until the maintenance window opens",
        Reason.NODE_DEADLINE: "nobody else is moved until the late nodes are live",
        Reason.SUSPENDED: "nothing, until `kubectl edgewright resume`",
        Reason.ALIAS_MOVED_BACK: "the nodes go back at once, without waves",
        Reason.ROLLED_OUT: "nothing: nodes that come or come back get this release",
        Reason.ROLLED_BACK: "nothing: nodes that come or come back get this release",
        Reason.GATE_FAILED: "the nodes go back at once; the release stays in quarantine",
        Reason.QUARANTINED: "nothing, until another release is asked for or this one is freed",
    }
    if status.paused is not None:
        return "nothing, until `kubectl edgewright resume`, `kubectl edgewright rollback` or an edit of the spec"
    return sentences.get(Reason(ready.reason), "the operator looks again as soon as something changes")


def node(name: str, hardware: Hardware | None, assigned: AssignedModel | None, status: ModelStatus | None) -> list[str]:
    """One node's side of one model."""
    lines = [f"node {name}: class {hardware.class_ if hardware else 'unknown: its agent has not reported'}"]
    if assigned is None:
        return [*lines, "nothing of this model is assigned to it: not selected, or its wave has not come"]
    if assigned.live:
        live = assigned.live
        since = f", since {assigned.since}" if assigned.since else ""
        lines.append(f"assigned: version {live.version}, {live.variant}, manifest {short(live.manifest)}{since}")
    if assigned.benchmark:
        lines.append(f"asked to measure: {', '.join(assigned.benchmark.variants)}")
    if assigned.permit:
        lines.append("it has a permit to go back to an older release")
    if assigned.orphaned:
        lines.append("orphaned: the CompressedModel is gone, the node goes on serving")
    if status is None:
        return [*lines, "its agent has said nothing about this model yet"]
    about = f" of {short(status.target)}" if status.target else ""
    lines.append(f"state: {status.state}{about} {status.reason} {status.message}".rstrip())
    for word, served in (("serves", status.live), ("before", status.previous)):
        if served:
            lines.append(f"{word}: version {served.version}, {served.variant}, manifest {short(served.manifest)}")
    if status.trial:
        lines.append(f"on trial until {status.trial.until}: until then the node itself may revert it")
    lines += _figures(status.figures)
    for entry in status.benchmark:
        lines.append(
            f"measured {short(entry.digest)}: p50 {entry.p50_microseconds} us, p95 {entry.p95_microseconds} us,"
            f" {entry.rss_bytes >> 20} MB, runtime {entry.runtime_version}"
        )
    return lines


def _conditions(status: CompressedModelStatus) -> Iterator[str]:
    for condition in status.conditions:
        if condition.type is ConditionType.READY or condition.status is ConditionStatus.TRUE:
            yield f"{condition.type} is {condition.status} ({condition.reason}): {condition.message}"


def _release(status: CompressedModelStatus) -> Iterator[str]:
    if status.release:
        began = f", rolled out since {status.started}" if status.started else ""
        yield f"release: version {status.release.version}, manifest {short(status.release.manifest)}{began}"
    if status.last_good and status.last_good != status.release:
        yield f"last good: version {status.last_good.version}, manifest {short(status.last_good.manifest)}"
    if (wave := status.wave) is not None:
        soaked = f"soaked {wave.soak_elapsed_seconds} s at the last checkpoint"
        yield f"wave {wave.index + 1} of {wave.of}: {wave.exposed} of {wave.size} nodes exposed, {soaked}"


def _classes(status: CompressedModelStatus) -> Iterator[str]:
    for row in status.hardware_classes:
        p95 = f", p95 {row.p95_milliseconds:.3g} ms" if row.p95_milliseconds else ""
        yield f"class {row.name}: {row.nodes} nodes, {row.variant or 'no variant'}{p95}: {row.reason}"
        for one in row.candidates:
            yield f"  measured {one.variant}: p50 {one.p50_microseconds} us, p95 {one.p95_microseconds} us"


def _gate(status: CompressedModelStatus) -> Iterator[str]:
    if status.gate is None:
        return
    yield f"gate: {status.gate.verdict}" + (f", at {status.gate.at}" if status.gate.at else "")
    for check in status.gate.checks:
        value = "no value" if check.value is None else f"{check.value:.4g}"
        said = f" ({check.message})" if check.message and check.verdict is not Verdict.PASS else ""
        yield f"  {check.name}: {value} against {check.limit:g} from {check.samples} samples: {check.verdict}{said}"


def _nodes(status: CompressedModelStatus) -> Iterator[str]:
    if counts := status.counts:
        yield (
            f"nodes: {counts.total} selected, {counts.live} live, {counts.updating} updating, {counts.failed} failed,"
            f" {counts.offline} offline, {counts.never_seen} never seen"
        )
    for row in status.worst_nodes:
        yield f"  {row.name}: {row.state} {row.reason} {row.message}".rstrip()


def _past(status: CompressedModelStatus) -> Iterator[str]:
    for entry in status.quarantined:
        yield f"quarantined: manifest {short(entry.manifest)} since {entry.since}: {entry.reason}"
    for past in status.history:
        yield f"history: version {past.version} {past.outcome} at {past.ended} ({past.reason})"


def _figures(figures: Figures | None) -> list[str]:
    if figures is None:
        return ["it has reported no figures: no evidence, which is never good news"]
    agreement = "never compared" if figures.agreement is None else f"agreement {figures.agreement:.3f}"
    lines = [
        f"figures: {figures.samples} windows, {figures.effective_samples} effective samples"
        f" ({figures.replayed} replayed), {figures.errors} errors, p50 {figures.p50_microseconds} us,"
        f" p95 {figures.p95_microseconds} us, {agreement}, {figures.rss_bytes >> 20} MB"
    ]
    if figures.unknown_ratio is not None:
        drift = "not known yet" if figures.drift is None else f"{figures.drift:.3f}"
        lines.append(f"  unknown ratio {figures.unknown_ratio:.3f}, drift {drift}")
    return lines
