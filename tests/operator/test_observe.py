"""Selection, tenancy, heartbeats and foreign input."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from edgewright_contract import names
from edgewright_contract.conditions import Reason
from edgewright_contract.timestamps import micro_time
from edgewright_operator import observe, views
from edgewright_operator.facts import ModelFacts, SourceProblem

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def edge_node(name: str, status: Any = None, spec: Any = None, **labels: str) -> views.EdgeNodeView:
    found = {"metadata": {"name": name, "labels": labels}, "spec": spec or {}, "status": status or {}}
    return views.edge_node(json.dumps(found).encode())


def model(**labels: str) -> ModelFacts:
    spec = {"source": {"registeredModel": "m", "alias": "a"}, "nodeSelector": {"matchLabels": labels}}
    found = observe.model_facts({"metadata": {"namespace": "n", "name": "x"}, "spec": spec})
    assert isinstance(found, ModelFacts)
    return found


@pytest.mark.parametrize(
    ("wanted", "allowed", "names_of"),
    [
        ({}, {}, ["one", "two"]),
        ({"site": "a"}, {}, ["one"]),
        ({}, {"site": "a"}, ["one"]),
        ({"site": "b"}, {"site": "a"}, []),
        ({"site": "a"}, {"floor": "2"}, []),
    ],
)
def test_both_selectors_must_match_also_where_they_contradict(
    wanted: dict[str, str], allowed: dict[str, str], names_of: list[str]
) -> None:
    fleet = [edge_node("one", site="a"), edge_node("two", site="b", floor="2")]
    assert [node.name for node in observe.selected(model(**wanted), fleet, allowed)] == names_of


def test_a_namespace_without_the_annotation_selects_no_node_unless_there_is_one_tenant() -> None:
    plain = views.namespace(b'{"metadata": {"name": "n"}}')
    noted = views.NamespaceView("n", "1", {names.ANNOTATION_NODE_SELECTOR: "site=a, floor = 2"})
    assert observe.selector_of(plain, single_tenant=False) is None
    assert observe.selector_of(plain, single_tenant=True) == {}
    assert observe.selector_of(noted, single_tenant=True) == {"site": "a", "floor": "2"}


@pytest.mark.parametrize("text", ["", "  ", ",", " , "])
def test_a_blank_node_selector_is_none_and_not_all_nodes(text: str) -> None:
    blank = views.NamespaceView("n", "1", {names.ANNOTATION_NODE_SELECTOR: text})
    assert observe.selector_of(blank, single_tenant=False) is None


@pytest.mark.parametrize(("age", "reachable"), [(0, True), (899, True), (900, False), (None, False)])
def test_a_node_is_reachable_while_its_heartbeat_is_young(age: int | None, reachable: bool) -> None:
    renewed = None if age is None else micro_time(NOW - timedelta(seconds=age))
    lease = views.lease(json.dumps({"metadata": {"name": "one"}, "spec": {"renewTime": renewed}}).encode())
    beats = {"one": lease.renewed} if lease.renewed else {}
    assert observe.node_facts(edge_node("one"), "n/x", beats, NOW, 900).reachable is reachable


@pytest.mark.parametrize(
    ("status", "where"),
    [
        ({"models": [{"name": "n/x", "state": "Dancing"}]}, "status.models: state"),
        ({"models": "many"}, "status: "),
        ({"hardware": {"class": 7}}, "hardware: class"),
    ],
)
def test_a_status_that_cannot_be_read_counts_as_no_status_and_is_named(status: Any, where: str) -> None:
    broken = edge_node("one", status)
    assert broken.problem.startswith(where)
    found = observe.node_facts(broken, "n/x", {}, NOW, 900)
    assert found.status is None
    assert found.hardware_class == "unknown"


def test_a_node_whose_spec_cannot_be_read_is_left_alone() -> None:
    broken = edge_node("one", spec={"models": [{"name": "n/x"}]})
    assert broken.problem.startswith("spec: models.0.registeredModel")
    assert observe.selected(model(), [broken], {}) == []


def test_alike_nodes_share_what_they_hold() -> None:
    status = {"models": [{"name": "n/x", "state": "Live"}]}
    one, two = edge_node("one", status), edge_node("two", status)
    assert one.models[0] is two.models[0]
    assert one.spec is two.spec


def test_a_spec_that_cannot_be_read_says_where() -> None:
    found = observe.model_facts({"metadata": {"namespace": "n", "name": "x"}, "spec": {"source": {}}})
    assert isinstance(found, SourceProblem)
    assert found.reason is Reason.INVALID_SPEC
    assert "spec.source.registeredModel" in found.message
