"""An EdgeNode and a heartbeat Lease for each labelled Node, none for a Node that is gone or was made anew."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import structlog

from edgewright_contract import names
from edgewright_contract.conditions import Reason
from edgewright_operator.api import ClusterError, Conflict
from edgewright_operator.cluster import Cluster
from edgewright_operator.fleet import Fleet
from edgewright_operator.views import EdgeNodeView, LeaseView, NodeView
from edgewright_operator.workers import for_each

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Differences:
    """What has to be written so that EdgeNodes and Leases fit the Nodes."""

    missing: list[NodeView]
    silent: list[NodeView]
    relabeled: list[tuple[EdgeNodeView, NodeView]]
    orphans: list[EdgeNodeView]


def differences(
    nodes: Mapping[str, NodeView], edge_nodes: Mapping[str, EdgeNodeView], leases: Mapping[str, LeaseView]
) -> Differences:
    """Pure. An EdgeNode of another UID is an orphan first; its successor is missing once it is gone."""
    orphans, relabeled = [], []
    for name, edge in edge_nodes.items():
        node = nodes.get(name)
        if node is None or node.uid not in edge.owners:
            orphans.append(edge)
        elif node.labels != edge.labels:
            relabeled.append((edge, node))
    missing = [node for name, node in nodes.items() if name not in edge_nodes]
    silent = [node for name, node in nodes.items() if name not in leases]
    return Differences(missing, silent, relabeled, orphans)


@dataclass(slots=True)
class Mirror:
    """Writes the differences; `told` keeps which unreadable objects an Event was written about."""

    cluster: Cluster
    fleet: Fleet
    told: dict[str, str] = field(default_factory=dict)

    async def round(self) -> None:
        """Once.

        Raises:
            ClusterError: the first that a write met; the others went on.
        """
        found = differences(self.fleet.nodes.items, self.fleet.edge_nodes.items, self.fleet.leases.items)
        failed: list[ClusterError] = []

        async def written(write: Callable[[], Awaitable[None]]) -> None:
            try:
                await write()
            except ClusterError as error:
                failed.append(error)

        await for_each(self._writes(found), written, self.cluster.at_once)
        if failed:
            raise failed[0]
        await self._tell()

    def _writes(self, found: Differences) -> Iterator[Callable[[], Awaitable[None]]]:
        yield from (partial(self._delete, edge) for edge in found.orphans)
        yield from (partial(self._relabel, edge, node) for edge, node in found.relabeled)
        yield from (partial(self.cluster.create_edge_node, node) for node in found.missing)
        yield from (partial(self.cluster.create_heartbeat, node) for node in found.silent)

    async def _delete(self, edge: EdgeNodeView) -> None:
        """Only when the API server says right now that its Node is gone or wants no agent: our mirror may be behind."""
        node = await self.cluster.node(edge.name)
        if node is not None and node.uid in edge.owners and node.labels.get(names.LABEL_AGENT) == "true":
            return
        await self.cluster.delete_edge_node(edge)
        self.fleet.edge_nodes.drop(edge.name)

    async def _relabel(self, edge: EdgeNodeView, node: NodeView) -> None:
        try:
            await self.cluster.relabel(edge, node.labels)
        except Conflict:
            fresh = await self.cluster.edge_node(edge.name)
            if fresh is not None:
                self.fleet.edge_nodes.put(fresh)
            raise

    async def _tell(self) -> None:
        """An Event, once, about each EdgeNode that cannot be read whole."""
        unread = {name: view for name, view in self.fleet.edge_nodes.items.items() if view.problem}
        self.told = {name: problem for name, problem in self.told.items() if name in unread}
        for name, view in unread.items():
            if self.told.get(name) == view.problem:
                continue
            about = {"kind": "EdgeNode", "metadata": {"name": name, "uid": view.uid}}
            log.warning("unreadable EdgeNode", name=name, problem=view.problem)
            now = datetime.now(UTC)
            await self.cluster.create_event(about, Reason.INVALID_SPEC, view.problem, warning=True, now=now)
            self.told[name] = view.problem
