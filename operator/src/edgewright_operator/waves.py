"""Which nodes are exposed together: cumulative targets over the selected nodes that can be reached. Pure."""

import hashlib
from collections.abc import Sequence

from edgewright_contract.compressedmodel import Wave
from edgewright_contract.quantities import share_of
from edgewright_operator.facts import NodeFacts


def order(nodes: Sequence[NodeFacts], model: str, manifest: str) -> list[NodeFacts]:
    """The order of exposure: who is exposed already, one node of each other class, then the rest; always the same.

    Offline nodes take no part, unless they are exposed: an exposure that went silent still counts as one.
    Hashed with the model's name, so that not every model takes the same node as its canary.
    """
    everyone = sorted(nodes, key=lambda node: (hashlib.sha256(f"{model}/{node.name}".encode()).digest(), node.name))
    exposed = [node for node in everyone if node.assigned_manifest() == manifest]
    shuffled = exposed + [node for node in everyone if node.reachable and node.assigned_manifest() != manifest]
    first: dict[str, NodeFacts] = {}
    for node in shuffled:
        first.setdefault(node.hardware_class, node)
    canaries = {node.name for node in first.values()}
    waiting = shuffled[len(exposed) :]
    ahead = [node for node in waiting if node.name in canaries]
    return exposed + ahead + [node for node in waiting if node.name not in canaries]


def size(waves: Sequence[Wave], index: int, nodes: Sequence[NodeFacts]) -> int:
    """How many nodes may be exposed in wave `index`; never less than one of each class in the first, or than before."""
    classes = len({node.hardware_class for node in nodes})
    reached = min(classes, len(nodes))
    for wave in waves[: index + 1]:
        target = wave.nodes if wave.nodes is not None else f"{wave.percent}%"
        reached = max(reached, share_of(target, len(nodes), at_least=min(1, len(nodes))))
    return reached
