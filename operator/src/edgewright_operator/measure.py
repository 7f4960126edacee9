"""Each hardware class measures the candidates on one or two idle nodes before it is exposed. Pure.

Results live on the EdgeNodes, by digest and runtime version, so a renewed release is not measured again; the medians
that a choice rests on stand in the CompressedModel's status.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from edgewright_contract.compressedmodel_status import Candidate, HardwareClassStatus
from edgewright_contract.edgenode import AssignedModel, Benchmark, BenchmarkRequest, ModelState
from edgewright_contract.quantities import seconds
from edgewright_contract.release import Release
from edgewright_contract.timestamps import rfc3339
from edgewright_operator.choose import Candidates, Choice, candidates, choose, pinned, unfit, unmeasured
from edgewright_operator.facts import UNKNOWN_CLASS, ModelFacts, NodeFacts, ReleaseFacts

CLASSES = 12
"""Classes that the status has room for, the largest first; a rarer one is not waited for."""
NODES = 2
"""Idle nodes of a class that measure, where there are so many."""
_QUIET = (ModelState.LIVE, ModelState.REJECTED, ModelState.REVERTED)


@dataclass(frozen=True, slots=True)
class ClassChoice:
    """What one class runs, or that it still measures."""

    name: str
    nodes: int
    choice: Choice
    measuring_since: str | None = None

    @property
    def waiting(self) -> bool:
        """Whether its measurements are waited for."""
        return self.measuring_since is not None


@dataclass(frozen=True, slots=True)
class Measuring:
    """The choice of each class, and the benchmark requests to write."""

    classes: Mapping[str, ClassChoice]
    requests: Mapping[str, AssignedModel]

    def variant(self, name: str) -> str | None:
        """What the class runs; none while it measures or where nothing fits."""
        found = self.classes.get(name)
        return None if found is None or found.waiting else found.choice.variant


def chosen(
    model: ModelFacts, release: ReleaseFacts, ordered: Sequence[NodeFacts], now: datetime, *, patient: bool = True
) -> Measuring:
    """Choose for every class; `ordered` in the order of exposure, of which the last ones measure.

    patient: whether a class that measures is waited for, up to its deadline; a way back is not.
    """
    groups: dict[str, list[NodeFacts]] = {}
    for node in ordered:
        groups.setdefault(node.hardware_class, []).append(node)
    if (fixed := pinned(release.release, model.spec.selection)) is not None:
        return Measuring({name: ClassChoice(name, len(nodes), fixed) for name, nodes in groups.items()}, {})
    same = model.status.release is not None and model.status.release.manifest == release.manifest
    recorded = {entry.name: entry for entry in model.status.hardware_classes} if same else {}
    found = candidates(release.release, model.spec.selection)
    classes: dict[str, ClassChoice] = {}
    requests: dict[str, AssignedModel] = {}
    for name, nodes in groups.items():
        one, asked = _class(model, release, name, nodes, found, recorded.get(name), now, patient=patient)
        classes[name] = one
        requests |= asked
    return Measuring(classes, requests)


def results(nodes: Iterable[NodeFacts], release: Release, names: Iterable[str]) -> dict[str, Candidate]:
    """Medians over the nodes of one class, of measurements with the runtime that most of them have now."""
    nodes = list(nodes)
    runtimes = Counter(node.hardware.runtime_version for node in nodes if node.hardware)
    if not runtimes:
        return {}
    runtime = min(runtimes, key=lambda version: (-runtimes[version], version))
    taken: dict[str, list[Benchmark]] = {}
    for node in nodes:
        for entry in node.status.benchmark if node.status else ():
            if entry.runtime_version == runtime:
                taken.setdefault(entry.digest, []).append(entry)
    found = {}
    for name in names:
        rows = taken.get(release.variant(name).digest)
        if rows:
            p50, p95 = median(row.p50_microseconds for row in rows), median(row.p95_microseconds for row in rows)
            found[name] = Candidate(variant=name, p50_microseconds=round(p50), p95_microseconds=round(p95))
    return found


def _class(
    model: ModelFacts,
    release: ReleaseFacts,
    name: str,
    nodes: Sequence[NodeFacts],
    found: Candidates,
    recorded: HardwareClassStatus | None,
    now: datetime,
    *,
    patient: bool,
) -> tuple[ClassChoice, Mapping[str, AssignedModel]]:
    selection, count = model.spec.selection, len(nodes)
    if not found.names:
        return ClassChoice(name, count, unfit(found.miss)), {}
    if found.trivial and found.fallback == found.names[0] and selection.constraints.max_p95 is None:
        return ClassChoice(name, count, Choice(found.fallback, "the only candidate")), {}
    before = {entry.variant: entry for entry in recorded.candidates} if recorded else {}
    measured = before | results(nodes, release.release, found.names)
    asked = _asked(nodes, release, found)
    pending = [node for node in asked if not _finished(node, release, found)]
    since = (recorded.measuring_since if recorded else None) or rfc3339(now)
    late = (now - datetime.fromisoformat(since)).total_seconds() >= seconds(selection.deadline)
    status = model.status  # a class that it has no room for: nobody would remember since when it measures
    same = status.release is not None and status.release.manifest == release.manifest
    late |= same and recorded is None and len(status.hardware_classes) >= CLASSES
    if measured.keys() & set(found.names) and (not pending or late or before):
        return ClassChoice(name, count, choose(release.release, selection, measured)), {}
    unasked = [node for node in pending if not _is_asked(node, release, found)]
    requests = {node.name: _request(model, node, release, found) for node in unasked}
    if name == UNKNOWN_CLASS or not any(node.reachable for node in nodes):
        return ClassChoice(name, count, unmeasured(found, "no node of the class can measure now")), requests
    if late or not patient:
        why = f"not measured within {selection.deadline} by {_listed(asked)}" if late else "a way back waits for nobody"
        return ClassChoice(name, count, unmeasured(found, why)), requests
    waiting = f"{_listed(asked)} measure {', '.join(found.names)}"
    return ClassChoice(name, count, Choice(None, waiting[:300]), since), requests


def _asked(nodes: Sequence[NodeFacts], release: ReleaseFacts, found: Candidates) -> list[NodeFacts]:
    """Who measures: who does already, then idle nodes, the last in the order of exposure first."""
    asked = [node for node in nodes if node.reachable and _is_asked(node, release, found)]
    idle = [node for node in reversed(nodes) if node.reachable and _idle(node) and node not in asked]
    return [*asked, *idle[: max(0, NODES - len(asked))]]


def _idle(node: NodeFacts) -> bool:
    """Whether it is not being moved; when the machine itself is idle, its agent knows."""
    return node.status is None or node.status.target is None or node.status.state in _QUIET


def _is_asked(node: NodeFacts, release: ReleaseFacts, found: Candidates) -> bool:
    request = node.assigned.benchmark if node.assigned else None
    return request is not None and request.manifest == release.manifest and list(found.names) == request.variants


def _finished(node: NodeFacts, release: ReleaseFacts, found: Candidates) -> bool:
    """An agent reports all that it could measure at once: what it leaves out is unfit on it."""
    digests = {release.release.variant(name).digest for name in found.names}
    runtime = node.hardware.runtime_version if node.hardware else None
    entries = node.status.benchmark if node.status else ()
    return any(entry.digest in digests and entry.runtime_version == runtime for entry in entries)


def _request(model: ModelFacts, node: NodeFacts, release: ReleaseFacts, found: Candidates) -> AssignedModel:
    request = BenchmarkRequest(manifest=release.manifest, variants=list(found.names))
    held = node.assigned or AssignedModel(name=model.key, registered_model=model.spec.source.registered_model)
    return held.model_copy(update={"benchmark": request})


def _listed(nodes: Sequence[NodeFacts]) -> str:
    return " and ".join(node.name for node in nodes) or "any node: all are being moved"
