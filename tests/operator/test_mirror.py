"""Which EdgeNodes and Leases are made, relabeled and deleted, and that a deletion is asked for twice."""

import asyncio
import json
from typing import Any

import pytest

from edgewright_contract import names
from edgewright_operator import views
from edgewright_operator.fleet import Fleet
from edgewright_operator.mirror import Mirror, differences
from edgewright_operator.views import EdgeNodeView, LeaseView, NodeView


def node(name: str, uid: str = "u", **labels: str) -> NodeView:
    return NodeView(name, "1", uid, labels)


def edge(name: str, owner: str = "u", problem: str = "", **labels: str) -> EdgeNodeView:
    return EdgeNodeView(name, "1", "e", labels, (owner,), None, None, (), problem)


@pytest.mark.parametrize(
    ("nodes", "edges", "leases", "expected"),
    [
        ([node("a")], [], [], (["a"], ["a"], [], [])),
        ([node("a")], [edge("a")], ["a"], ([], [], [], [])),
        ([node("a")], [edge("a")], [], ([], ["a"], [], [])),
        ([node("a", site="x")], [edge("a")], ["a"], ([], [], ["a"], [])),
        ([node("a")], [edge("a", site="x")], ["a"], ([], [], ["a"], [])),
        ([], [edge("a")], ["a"], ([], [], [], ["a"])),
        ([node("a", uid="new")], [edge("a", owner="old")], ["a"], ([], [], [], ["a"])),
    ],
)
def test_differences(nodes: Any, edges: Any, leases: Any, expected: Any) -> None:
    found = differences(
        {each.name: each for each in nodes},
        {each.name: each for each in edges},
        {name: LeaseView(name, "1", None) for name in leases},
    )
    relabeled = [each.name for each, _ in found.relabeled]
    names = [[each.name for each in part] for part in (found.missing, found.silent)]
    assert (*names, relabeled, [each.name for each in found.orphans]) == expected


class Cluster:
    at_once = 4

    def __init__(self, nodes: list[NodeView]) -> None:
        self.nodes = {each.name: each for each in nodes}
        self.calls: list[tuple[str, str]] = []

    async def node(self, name: str) -> NodeView | None:
        return self.nodes.get(name)

    async def delete_edge_node(self, view: EdgeNodeView) -> None:
        self.calls.append(("delete", view.name))

    async def create_edge_node(self, view: NodeView) -> None:
        self.calls.append(("create", view.name))

    async def create_heartbeat(self, view: NodeView) -> None:
        self.calls.append(("heartbeat", view.name))

    async def create_event(self, about: Any, reason: str, message: str, **_: Any) -> None:
        self.calls.append((reason, f"{about['metadata']['name']}: {message}"))


def mirror(cluster: Cluster, *edges: EdgeNodeView) -> Mirror:
    fleet = Fleet(None, lambda _: None, lambda: None)  # type: ignore[arg-type]
    fleet.edge_nodes.items.update({each.name: each for each in edges})
    return Mirror(cluster, fleet)  # type: ignore[arg-type]


async def test_an_edge_node_is_deleted_only_if_its_node_is_gone_right_now() -> None:
    wants = {names.LABEL_AGENT: "true"}
    cluster = Cluster([NodeView("there", "1", "u", wants)])  # but the watch has not told of it
    one = mirror(cluster, edge("there"), edge("gone"), edge("anew"), edge("unlabeled"))
    cluster.nodes["anew"] = NodeView("anew", "1", "another", wants)
    cluster.nodes["unlabeled"] = node("unlabeled")
    await one.round()
    assert sorted(cluster.calls) == [("delete", "anew"), ("delete", "gone"), ("delete", "unlabeled")]
    assert list(one.fleet.edge_nodes.items) == ["there"]


async def test_an_unreadable_edge_node_has_one_event_for_each_problem() -> None:
    cluster = Cluster([node("a")])
    one = mirror(cluster, edge("a", problem="spec: no"))
    one.fleet.nodes.items["a"] = node("a")
    one.fleet.leases.items["a"] = LeaseView("a", "1", None)
    await one.round()
    await one.round()
    assert cluster.calls == [("InvalidSpec", "a: spec: no")]
    one.fleet.edge_nodes.items["a"] = edge("a", problem="spec: never")
    await one.round()
    assert len(cluster.calls) == 2


async def test_who_is_woken_by_a_change_of_a_node() -> None:
    woken: list[str] = []
    fleet = Fleet(None, woken.append, lambda: None)  # type: ignore[arg-type]

    def wish(name: str, **labels: str) -> dict[str, Any]:
        spec = {"source": {"registeredModel": "m", "alias": "a"}, "nodeSelector": {"matchLabels": labels}}
        return {"metadata": {"namespace": "n", "name": name, "uid": name, "resourceVersion": "1"}, "spec": spec}

    for each in (wish("all"), wish("here", site="here"), wish("there", site="there")):
        fleet.wishes.seen(each)
    assert woken == ["n/all", "n/here", "n/there"]
    woken.clear()
    found = {"metadata": {"name": "a", "labels": {"site": "here"}}, "spec": {}}
    fleet._edge_node("a", None, views.edge_node(json.dumps(found).encode()))
    assert sorted(woken) == ["n/all", "n/here"]
    woken.clear()
    found["spec"] = {"models": [{"name": "n/there", "registeredModel": "m"}]}  # assigned, no longer selected
    fleet._edge_node("a", None, views.edge_node(json.dumps(found).encode()))
    assert sorted(woken) == ["n/all", "n/here", "n/there"]
    woken.clear()
    fleet.wishes.seen(wish("all"))  # the same version again
    fleet.wishes.replace([wish("all"), wish("here", site="here")])
    assert woken == ["n/there"]
    await asyncio.sleep(0)
