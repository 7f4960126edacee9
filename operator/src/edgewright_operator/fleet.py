"""What is known of the cluster right now: the watched objects by name, and who is to be woken when one changes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from edgewright_contract import names
from edgewright_operator import cluster, observe, views
from edgewright_operator.api import Api
from edgewright_operator.facts import ModelFacts, SourceProblem
from edgewright_operator.views import EdgeNodeView, LeaseView, NamespaceView, NodeView
from edgewright_operator.watching import Watched, newer

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wish:
    """A CompressedModel as it was last seen, and what it says."""

    item: Object
    facts: ModelFacts | SourceProblem


@dataclass(slots=True)
class Wishes:
    """The CompressedModels by key; `changed(key)` when one is new, other or gone."""

    changed: Callable[[str], None]
    items: dict[str, Wish] = field(default_factory=dict)

    def seen(self, item: Object) -> None:
        """A version of an object, possibly an old one."""
        key = key_of(item)
        before = self.items.get(key)
        same = before is not None and before.item["metadata"]["uid"] == item["metadata"]["uid"]
        if before is not None and same and not newer(_version(item), _version(before.item)):
            return
        self.items[key] = Wish(item, observe.model_facts(item))
        self.changed(key)

    def gone(self, key: str) -> None:
        """There is no such object any more."""
        if self.items.pop(key, None) is not None:
            self.changed(key)

    def replace(self, items: list[Object]) -> None:
        """All that there are: what a missed deletion left is dropped."""
        for key in self.items.keys() - {key_of(item) for item in items}:
            self.gone(key)
        for item in items:
            self.seen(item)


@dataclass(slots=True)
class Fleet:
    """The mirrors of one process. `wake(key)` of a model, `renewed()` when Nodes, EdgeNodes or Leases come or go."""

    api: Api
    wake: Callable[[str], None]
    renewed: Callable[[], None]
    resync_seconds: float = 600.0
    wishes: Wishes = field(init=False)
    edge_nodes: Watched[EdgeNodeView] = field(init=False)
    nodes: Watched[NodeView] = field(init=False)
    leases: Watched[LeaseView] = field(init=False)
    namespaces: Watched[NamespaceView] = field(init=False)

    def __post_init__(self) -> None:
        api, resync = self.api, self.resync_seconds
        self.wishes = Wishes(self.wake)
        self.edge_nodes = Watched(api, cluster.EDGE_NODES, views.edge_node, self._edge_node, resync_seconds=resync)
        self.nodes = Watched(
            api, cluster.NODES, views.node, self._node, {"labelSelector": f"{names.LABEL_AGENT}=true"}, True, resync
        )
        self.leases = Watched(api, cluster.LEASES, views.lease, self._lease, resync_seconds=resync)
        self.namespaces = Watched(
            api, cluster.NAMESPACES, views.namespace, self._namespace, metadata_only=True, resync_seconds=resync
        )

    def watches(self) -> tuple[Watched[Any], ...]:
        """All four, to be run."""
        return self.edge_nodes, self.nodes, self.leases, self.namespaces

    def heartbeats(self) -> dict[str, datetime]:
        """Node name → last heartbeat."""
        return {name: lease.renewed for name, lease in self.leases.items.items() if lease.renewed is not None}

    def _edge_node(self, _name: str, before: EdgeNodeView | None, now: EdgeNodeView | None) -> None:
        for key in self._affected(before) | self._affected(now):
            self.wake(key)
        if before is None or now is None or before.labels != now.labels or before.problem != now.problem:
            self.renewed()

    def _affected(self, node: EdgeNodeView | None) -> set[str]:
        """Models that select the node, or that it was assigned to."""
        if node is None:
            return set()
        assigned = node.spec.models if node.spec else ()
        known = self.wishes.items.keys()  # an entry without its model is looked at until it is marked as orphaned
        found = {entry.name for entry in assigned if entry.name in known or not entry.orphaned}
        for key, wish in self.wishes.items.items():
            facts = wish.facts
            if isinstance(facts, ModelFacts) and facts.spec.node_selector.match_labels.items() <= node.labels.items():
                found.add(key)
        return found

    def _node(self, _name: str, before: NodeView | None, now: NodeView | None) -> None:
        if before is None or now is None or before.labels != now.labels or before.uid != now.uid:
            self.renewed()

    def _lease(self, _name: str, before: LeaseView | None, now: LeaseView | None) -> None:
        if before is None or now is None:
            self.renewed()

    def _namespace(self, name: str, before: NamespaceView | None, now: NamespaceView | None) -> None:
        if (before and before.annotations) != (now and now.annotations):
            for key in [key for key in self.wishes.items if key.startswith(f"{name}/")]:
                self.wake(key)


def key_of(item: Object) -> str:
    """`namespace/name`."""
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"


def _version(item: Object) -> str:
    return str(item["metadata"].get("resourceVersion", ""))
