"""Sizes and order of exposure."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_contract.compressedmodel import Wave
from edgewright_contract.edgenode import AssignedModel, Assignment, Hardware
from edgewright_operator.facts import NodeFacts
from edgewright_operator.waves import order, size

MANIFEST = "sha256:" + "a" * 64


def nodes(count: int, classes: int = 1) -> list[NodeFacts]:
    def hardware(kind: int) -> Hardware:
        facts = {"class": f"c{kind}", "arch": "x", "cpu": "x", "cores": 1, "memoryBytes": 1}
        return Hardware.model_validate(facts | {"agentVersion": "1", "runtimeVersion": "1"})

    return [NodeFacts(f"n{i}", {}, True, hardware(i % classes), None, None) for i in range(count)]


def given_to(node: NodeFacts) -> NodeFacts:
    live = Assignment(version=1, sequence=1, manifest=MANIFEST, variant="v")
    return replace(node, assigned=AssignedModel(name="a/b", registered_model="m", live=live))


@pytest.mark.parametrize(
    ("count", "classes", "sizes"),
    [(10, 1, [1, 1, 5, 10]), (11, 1, [1, 2, 6, 11]), (10, 3, [3, 3, 5, 10]), (1, 1, [1, 1, 1, 1]), (0, 1, [0] * 4)],
)
def test_sizes_are_cumulative_round_up_and_begin_with_one_of_each_class(
    count: int, classes: int, sizes: list[int]
) -> None:
    wish = [Wave(nodes=1), Wave(percent=10), Wave(percent=50), Wave(percent=100)]
    assert [size(wish, index, nodes(count, classes)) for index in range(4)] == sizes


def test_a_later_wave_that_asks_for_less_takes_nobody_back() -> None:
    wish = [Wave(nodes=5), Wave(percent=10), Wave(percent=100)]
    assert [size(wish, index, nodes(10)) for index in range(3)] == [5, 5, 10]


@given(st.integers(1, 12), st.integers(1, 4), st.randoms(use_true_random=False))
def test_the_order_ignores_how_nodes_are_listed_and_begins_with_every_class(
    count: int, classes: int, shuffler: object
) -> None:
    fleet = nodes(count, classes)
    mixed = list(fleet)
    shuffler.shuffle(mixed)  # type: ignore[attr-defined]
    found = order(mixed, "a/b", MANIFEST)
    assert found == order(fleet, "a/b", MANIFEST)
    assert sorted(node.name for node in found) == sorted(node.name for node in fleet)
    distinct = len({node.hardware_class for node in fleet})
    assert len({node.hardware_class for node in found[:distinct]}) == distinct


def test_the_exposed_come_first_even_offline_and_other_offline_nodes_take_no_part() -> None:
    fleet = nodes(4)
    fleet[2] = replace(given_to(fleet[2]), reachable=False)
    fleet[3] = replace(fleet[3], reachable=False)
    found = [node.name for node in order(fleet, "a/b", MANIFEST)]
    assert found[0] == "n2"
    assert sorted(found) == ["n0", "n1", "n2"]


def test_models_do_not_share_their_canary() -> None:
    firsts = {order(nodes(20), f"default/model-{index}", MANIFEST)[0].name for index in range(20)}
    assert len(firsts) > 5
