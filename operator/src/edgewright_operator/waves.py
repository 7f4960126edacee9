"""Which nodes are exposed together: cumulative targets over the selected nodes that can be reached. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime

from edgewright_contract.compressedmodel import Rollout, Wave
from edgewright_contract.edgenode import AssignedModel, Assignment
from edgewright_contract.quantities import seconds, share_of
from edgewright_contract.timestamps import rfc3339
from edgewright_operator.facts import ModelFacts, NodeFacts, ReleaseFacts
from edgewright_operator.measure import Measuring


def order(nodes: Sequence[NodeFacts], model: str, manifest: str, good: str | None = None) -> list[NodeFacts]:
    """The order of exposure: who is exposed already, one node of each other class, then the rest; always the same.

    Nodes on a release that is neither this one nor `good` (the last good) go first: it was abandoned under them.
    Offline nodes take no part, unless they are exposed: an exposure that went silent still counts as one.
    Hashed with the model's name, so that not every model takes the same node as its canary.
    """
    everyone = sorted(nodes, key=lambda node: (hashlib.sha256(f"{model}/{node.name}".encode()).digest(), node.name))
    exposed = [node for node in everyone if node.assigned_manifest() == manifest]
    waiting = [node for node in everyone if node.reachable and node.assigned_manifest() != manifest]
    waiting.sort(key=lambda node: node.assigned_manifest() in (None, good))
    known = {node.hardware_class for node in exposed}
    first: dict[str, NodeFacts] = {}
    for node in waiting:
        if node.hardware_class not in known:
            first.setdefault(node.hardware_class, node)
    ahead = set(map(id, first.values()))
    return [*exposed, *first.values(), *(node for node in waiting if id(node) not in ahead)]


def size(waves: Sequence[Wave], index: int, nodes: Sequence[NodeFacts], aside: int = 0) -> int:
    """How many nodes may be exposed in wave `index`; never less than one of each class in the first, or than before.

    `aside`: exposed nodes that are against the release; others are asked in their place.
    """
    population = len(nodes) - aside
    reached = min(len({node.hardware_class for node in nodes}), population)
    for wave in waves[: index + 1]:
        target = wave.nodes if wave.nodes is not None else f"{wave.percent}%"
        reached = max(reached, share_of(target, population, at_least=min(1, population)))
    return max(0, reached) + aside


def late(node: NodeFacts, manifest: str, rollout: Rollout, now: datetime) -> bool:
    """Whether it can be reached, was given the release long ago and neither serves nor refuses it."""
    since = node.assigned.since if node.assigned else None
    if not node.reachable or node.assigned_manifest() != manifest or since is None:
        return False
    if node.serves_as_assigned() or node.failed(manifest):
        return False
    return (now - datetime.fromisoformat(since)).total_seconds() > seconds(rollout.node_deadline)


def moves(
    model: ModelFacts,
    release: ReleaseFacts,
    due: Sequence[NodeFacts],
    population: Sequence[NodeFacts],
    measuring: Measuring,
    now: datetime,
) -> dict[str, AssignedModel]:
    """Assignments for due nodes, as many at once as maxUnavailable allows over all classes.

    To give a node something else that is unavailable already costs nothing: nobody waits for what it had.
    """
    variants = {name: measuring.variant(name) for name in measuring.classes}
    wanting = [
        (node, variant)
        for node in due
        if node.reachable
        and (variant := variants.get(node.hardware_class)) is not None
        and _differs(node, release.manifest, variant)
    ]
    if not wanting:
        return {}
    rollout = model.spec.rollout
    allowed = max(0, _room(rollout, population) - _busy(rollout, release.manifest, population, now))
    entries = {name: given(model, _assignment(release, name), now) for name in {variant for _, variant in wanting}}
    found: dict[str, AssignedModel] = {}
    for node, variant in wanting:
        free = node.unavailable()
        if free or allowed > 0:
            found[node.name] = entries[variant]
            allowed -= not free
    return found


def blocked(rollout: Rollout, manifest: str, population: Sequence[NodeFacts], now: datetime) -> bool:
    """Whether late nodes that serve nothing at all take up maxUnavailable, so that nobody else can be moved."""
    empty = sum(late(node, manifest, rollout, now) and not _serves_something(node) for node in population)
    return empty >= _room(rollout, population)


def _room(rollout: Rollout, population: Sequence[NodeFacts]) -> int:
    return share_of(rollout.max_unavailable, len(population), at_least=1)


def _busy(rollout: Rollout, manifest: str, population: Sequence[NodeFacts], now: datetime) -> int:
    """Nodes that are unavailable; one that is late and goes on with what it had is no longer being moved."""
    return sum(
        node.unavailable() and not (_serves_something(node) and late(node, manifest, rollout, now))
        for node in population
    )


def _serves_something(node: NodeFacts) -> bool:
    return node.status is not None and node.status.live is not None


def proven_first(due: Sequence[NodeFacts], manifest: str) -> list[NodeFacts]:
    """Of a class in which nobody serves the release yet, only its first node: the class's canary."""
    if all(node.assigned_manifest() == manifest for node in due):
        return list(due)
    proven = {node.hardware_class for node in due if node.serves(manifest)}
    tried = {node.hardware_class for node in due if node.assigned_manifest() == manifest and node.reachable}
    kept = []
    for node in due:
        kind = node.hardware_class
        if kind in proven or node.assigned_manifest() == manifest or kind not in tried:
            kept.append(node)
            tried.add(kind)
    return kept


def given(model: ModelFacts, live: Assignment, now: datetime) -> AssignedModel:
    """The entry that makes a node serve `live`; a permit or benchmark request of before is dropped."""
    return AssignedModel(
        name=model.key,
        registered_model=model.spec.source.registered_model,
        live=live,
        since=rfc3339(now),
        removed_with_model=model.removed_with_model,
    )


def _differs(node: NodeFacts, manifest: str, variant: str) -> bool:
    if node.assigned_manifest() != manifest:
        return True
    live = node.assigned.live if node.assigned else None
    return live is not None and live.variant != variant and not node.failed(manifest)


def _assignment(release: ReleaseFacts, variant: str) -> Assignment:
    found = release.release
    return Assignment(version=found.version, sequence=found.sequence, manifest=release.manifest, variant=variant)


def exposed(nodes: Sequence[NodeFacts], manifest: str, moved: Mapping[str, AssignedModel]) -> int:
    """How many nodes have or get the release."""
    return sum(
        node.assigned_manifest() == manifest or (node.name in moved and moved[node.name].live is not None)
        for node in nodes
    )
