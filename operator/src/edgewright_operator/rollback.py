"""The way back: exposed nodes leave a condemned release at once, and an older one is returned to with permits. Pure."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from edgewright_contract.compressedmodel_status import CompressedModelStatus, HistoryEntry, Outcome, ReleaseRef
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import AssignedModel, Assignment
from edgewright_contract.permit import peek
from edgewright_operator import quarantine, waves
from edgewright_operator.facts import ModelFacts, NodeFacts

_RENEW_SECONDS = 3600
"""A permit that a node still needs is signed anew so long before its end."""


@dataclass(frozen=True, slots=True)
class PermitWish:
    """A permit to sign and to put into a node's assignment."""

    registered_model: str
    node: str
    from_sequence: int
    to_manifest: str


@dataclass(frozen=True, slots=True)
class Retreat:
    """Who goes back, to what, and the permits that they need. None as an assignment takes the model away."""

    assignments: Mapping[str, AssignedModel | None]
    permits: Mapping[str, PermitWish]


def retreat(model: ModelFacts, status: CompressedModelStatus, nodes: Sequence[NodeFacts], now: datetime) -> Retreat:
    """Every node that has a condemned manifest leaves it, offline ones too: they read it when they return.

    Level-triggered and independent of MLflow: whatever becomes of the source, the way back is gone to its end.
    """
    condemned = {entry.manifest for entry in status.quarantined}
    if not condemned:
        return Retreat({}, {})
    leaving = [node for node in nodes if node.assigned_manifest() in condemned]
    away: dict[str, AssignedModel | None] = {node.name: None for node in leaving}
    good = status.last_good
    if good is None or good.manifest in condemned:
        found = _to_own(model, leaving, status, now)
    else:
        found = back(model, leaving, nodes, good, now)
    return Retreat({**away, **found.assignments}, found.permits)


def _to_own(model: ModelFacts, leaving: Sequence[NodeFacts], status: CompressedModelStatus, now: datetime) -> Retreat:
    """Where no release was promoted yet: each node back to what it served before, if that was superseded, not failed.

    Nobody is left without a model because a second release failed before the first had gone all its way.
    """
    newest: dict[str, HistoryEntry] = {}
    for entry in status.history:
        newest.setdefault(entry.manifest, entry)
    assignments: dict[str, AssignedModel | None] = {}
    permits: dict[str, PermitWish] = {}
    for manifest, entry in newest.items():
        if entry.outcome is Outcome.FAILED or entry.sequence is None or quarantine.holds(status, manifest):
            continue
        target = ReleaseRef(version=entry.version, sequence=entry.sequence, manifest=manifest)
        own = [node for node in leaving if node.name not in assignments and _own_variant(node, manifest)]
        found = back(model, own, own, target, now)
        assignments |= found.assignments
        permits |= found.permits
    return Retreat(assignments, permits)


def back(
    model: ModelFacts, leaving: Sequence[NodeFacts], everyone: Sequence[NodeFacts], good: ReleaseRef, now: datetime
) -> Retreat:
    """Assign `good` to the leaving nodes, each with the variant that it or its class ran of it, where one is known."""
    known = _remembered(model, good) | _known_variants(everyone, good.manifest) if leaving else {}
    assignments: dict[str, AssignedModel | None] = {}
    for node in leaving:
        variant = _own_variant(node, good.manifest) or known.get(node.hardware_class) or known.get("")
        if variant is None:
            continue
        live = Assignment(version=good.version, sequence=good.sequence, manifest=good.manifest, variant=variant)
        assignments[node.name] = waves.given(model, live, now)
    return Retreat(assignments, permits_for(model, leaving, assignments, good))


def permits_for(
    model: ModelFacts, nodes: Iterable[NodeFacts], moves: Container[str], target: ReleaseRef
) -> dict[str, PermitWish]:
    """For a step to a lower sequence, of nodes in `moves`; to its own last known good a node goes back without one."""
    return {
        node.name: PermitWish(model.spec.source.registered_model, node.name, before, target.manifest)
        for node in nodes
        if node.name in moves and (before := _sequence(node)) > target.sequence
    }


def newer_than(nodes: Iterable[NodeFacts], target: ReleaseRef) -> list[NodeFacts]:
    """Nodes that were given a release of a greater sequence: for them `target` is a step back."""
    return [node for node in nodes if _sequence(node) > target.sequence]


def renewals(status: CompressedModelStatus, nodes: Iterable[NodeFacts], now: datetime) -> Retreat:
    """Permits that ran out before their node came back, and those that a node refused to do without."""
    assignments: dict[str, AssignedModel | None] = {}
    permits: dict[str, PermitWish] = {}
    for node in nodes:
        held = node.assigned
        if held is None or held.live is None or not node.reachable or node.serves(held.live.manifest):
            continue
        leaving = _lacking(status, node, held.live) if held.permit is None else _expired(held.permit, now)
        if leaving is not None:
            assignments[node.name] = held
            permits[node.name] = PermitWish(held.registered_model, node.name, leaving, held.live.manifest)
    return Retreat(assignments, permits)


def _expired(text: str, now: datetime) -> int | None:
    """The sequence that a permit which is running out lets the node leave."""
    said = peek(text)
    if said is None or said.not_after > now.timestamp() + _RENEW_SECONDS:
        return None
    return said.from_sequence


def _lacking(status: CompressedModelStatus, node: NodeFacts, wish: Assignment) -> int | None:
    """The sequence that the node serves, where it refused an older one for want of a permit (there was no key then)."""
    told = node.status
    if told is None or not node.failed(wish.manifest) or told.reason != Reason.DOWNGRADE:
        return None
    refs = [entry for entry in (status.release, status.last_good) if entry is not None]
    known: dict[str, int] = {ref.manifest: ref.sequence for ref in refs}
    known |= {entry.manifest: entry.sequence for entry in status.history if entry.sequence is not None}
    served = known.get(told.live.manifest) if told.live else None
    newest = max(known.values(), default=0)  # a node that serves nothing, or what nobody remembers: any step back
    leaving = served if served is not None else newest
    return leaving if leaving > wish.sequence else None


def wished(status: CompressedModelStatus, target: ReleaseRef, nodes: Iterable[NodeFacts]) -> bool:
    """Whether `target` is an older release that was good here: going to it is a rollback, without waves."""
    if quarantine.holds(status, target.manifest) is not None or not promoted(status, target.manifest):
        return False
    return any(node.assigned_manifest() != target.manifest for node in newer_than(nodes, target))


def promoted(status: CompressedModelStatus, manifest: str) -> bool:
    """Whether the release once reached all nodes through all gates here."""
    if status.last_good is not None and status.last_good.manifest == manifest:
        return True
    return any(entry.manifest == manifest and entry.outcome is Outcome.PROMOTED for entry in status.history)


def _sequence(node: NodeFacts) -> int:
    """Of the release that the node was given; -1: of none, and every release has a greater one."""
    return node.assigned.live.sequence if node.assigned and node.assigned.live else -1


def _own_variant(node: NodeFacts, manifest: str) -> str | None:
    served = [node.status.live, node.status.previous] if node.status else []
    return next((entry.variant for entry in served if entry is not None and entry.manifest == manifest), None)


def _remembered(model: ModelFacts, good: ReleaseRef) -> dict[str, str]:
    """The same as the status has it: two releases later no node may know any more."""
    found = model.status.last_good_variants if model.status.last_good == good else []
    return {"": found[0].variant} | {entry.name: entry.variant for entry in found} if found else {}


def _known_variants(nodes: Iterable[NodeFacts], manifest: str) -> dict[str, str]:
    """Of each class, and under "" of any, a variant of the release that some node has or had."""
    found: dict[str, str] = {}
    for node in nodes:
        live = node.assigned.live if node.assigned else None
        given = live.variant if live is not None and live.manifest == manifest else None
        if variant := _own_variant(node, manifest) or given:
            found.setdefault(node.hardware_class, variant)
            found.setdefault("", variant)
    return found
