"""Candidates, constraints, the pin, the nearest miss, and what nodes of a class measured."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from edgewright_contract.compressedmodel import Selection
from edgewright_contract.compressedmodel_status import Candidate
from edgewright_contract.conditions import ConditionType, Reason
from edgewright_operator import measure
from edgewright_operator.choose import candidates, choose

MEASURED = {"big": 200, "quick": 50, "small": 100}


@pytest.fixture(scope="module")
def three(stage: SimpleNamespace) -> Any:
    """A large, a fast and a small variant."""
    make = stage.variant
    return stage.release(
        1, make("big", 200, 4096, 0.9), make("quick", 50, 2048, 0.85, "big"), make("small", 100, 512, 0.7)
    )


def wish(**selection: Any) -> Selection:
    return Selection.model_validate(selection)


def figures(p50: dict[str, int]) -> dict[str, Candidate]:
    return {
        name: Candidate(variant=name, p50_microseconds=value, p95_microseconds=2 * value) for name, value in p50.items()
    }


@pytest.mark.parametrize(
    ("selection", "name"),
    [
        ({"objective": "Latency"}, "quick"),
        ({"objective": "Size"}, "small"),
        ({"objective": "Accuracy"}, "big"),
        ({"objective": "Size", "constraints": {"minMacroF1": 0.8}}, "quick"),
        ({"objective": "Latency", "constraints": {"maxMacroF1Drop": 0.01}}, "big"),
        ({"objective": "Accuracy", "constraints": {"maxSize": "1Ki"}}, "small"),
        ({"objective": "Accuracy", "constraints": {"maxSize": "2Ki"}}, "quick"),
        ({"objective": "Accuracy", "constraints": {"maxP95": "150ms"}}, "big"),
    ],
)
def test_the_objective_decides_among_those_that_meet_the_limits(three: Any, selection: Any, name: str) -> None:
    assert choose(three.release, wish(**selection), figures(MEASURED)).variant == name


def test_what_the_node_measured_counts_and_not_what_the_release_says(three: Any) -> None:
    measured = figures({"big": 100, "quick": 101, "small": 150})  # INT8 is slower than its parent here
    found = choose(three.release, wish(), measured)
    assert found.variant == "big"
    assert [entry.variant for entry in found.measured] == ["big", "quick", "small"]


def test_an_int8_whose_parent_nobody_measured_is_not_taken(three: Any) -> None:
    assert choose(three.release, wish(), figures({"quick": 1, "small": 100})).variant == "small"


def test_the_nearest_miss_is_named_and_not_the_first_listed(stage: Any) -> None:
    found = stage.release(1, stage.variant("far", 1, 1, 0.1), stage.variant("near", 1, 1, 0.88))
    choice = choose(found.release, wish(constraints={"minMacroF1": 0.9}), figures({"far": 1, "near": 1}))
    assert choice.variant is None
    assert "near: macro-F1 0.88, less than minMacroF1 0.9" in choice.reason


def test_a_p95_that_is_missed_is_named_with_what_was_measured(three: Any) -> None:
    choice = choose(three.release, wish(constraints={"maxP95": "1ms"}), figures({"big": 700, "small": 600}))
    assert choice.variant is None
    assert "small: p95 1200 us, more than maxP95 1ms" in choice.reason


def test_candidates_are_the_best_of_the_front_with_their_parents(stage: Any) -> None:
    make = stage.variant
    small = make("base-q", 50, 100, 0.9, "base"), make("tiny", 90, 50, 0.7)
    found = stage.release(1, make("base", 100, 400), make("worse", 101, 401), *small).release
    assert candidates(found, wish()).names == ("base-q", "base", "tiny")
    assert candidates(found, wish(candidates=1)).names == ("base-q", "base")
    assert candidates(found, wish(objective="Size", candidates=1)).names == ("tiny",)
    assert candidates(found, wish()).fallback == "base"


def test_a_release_without_scores_meets_no_limit_on_scores(stage: Any) -> None:
    found = candidates(stage.release(1, stage.variant("x", 1, 1, None)).release, wish(constraints={"minMacroF1": 0.1}))
    assert found.names == ()
    assert "macro-F1 None" in found.miss


def test_a_pin_that_is_not_there_says_what_is(stage: Any) -> None:
    play = stage.Play(stage.model(selection={"variant": "gone"}), stage.fleet(2))
    play.step(stage.release(1))
    assert play.reason == Reason.NO_VARIANT_FITS
    assert "base-fp32, base-int8" in play.message


def test_each_class_runs_what_it_measured(stage: Any) -> None:
    """The same INT8 is faster on one class and slower on the other."""
    play = stage.Play(stage.model(), stage.fleet(8))
    play.speeds = {"amd64-a": {"base-fp32": 100, "base-int8": 240}, "arm64-b": {"base-fp32": 800, "base-int8": 235}}
    play.run(stage.release(1))
    assert play.reason == Reason.ROLLED_OUT
    served = {(node.hardware_class, node.status.live.variant) for node in play.nodes}
    assert served == {("amd64-a", "base-fp32"), ("arm64-b", "base-int8")}
    rows = {row.name: row for row in play.model.status.hardware_classes}
    assert rows["arm64-b"].p95_milliseconds == 0.47
    assert {entry.variant: entry.p50_microseconds for entry in rows["amd64-a"].candidates} == {
        "base-fp32": 100, "base-int8": 240,
    }  # fmt: skip


def test_two_nodes_of_each_class_measure_and_nobody_is_exposed_before(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(12))
    play.measures = False
    for _ in range(3):
        play.step(stage.release(1))
    asked = [node for node in play.nodes if node.assigned and node.assigned.benchmark]
    assert sorted(node.hardware_class for node in asked) == ["amd64-a"] * 2 + ["arm64-b"] * 2
    assert play.exposed(stage.release(1).manifest) == 0
    assert play.reason == Reason.MEASURING


def test_a_class_that_does_not_measure_in_time_runs_the_parent_and_changes_once_it_has(stage: Any) -> None:
    play = stage.Play(stage.model(selection={"deadline": "20s"}), stage.fleet(4, classes=("one",)))
    play.measures = False
    play.run(stage.release(1))
    assert play.reason == Reason.ROLLED_OUT
    assert {node.status.live.variant for node in play.nodes} == {"base-fp32"}
    assert "not measured within 20s" in play.model.status.hardware_classes[0].reason
    play.measures = True
    play.run(stage.release(1))
    assert {node.status.live.variant for node in play.nodes} == {"base-int8"}


def test_a_class_that_cannot_be_reached_keeps_the_parent(stage: Any) -> None:
    nodes = stage.fleet(4, classes=("one",))
    play = stage.Play(stage.model(), [replace(node, hardware=None) for node in nodes])  # they never reported
    play.run(stage.release(1))
    assert {node.status.live.variant for node in play.nodes} == {"base-fp32"}


def test_a_renewed_release_is_not_measured_again(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(4)).run(stage.release(1))
    same = stage.release(1).release.model_copy(update={"version": 2, "sequence": 2000})
    renewed = replace(stage.release(2), release=same)
    play.measures = False
    play.nodes = [replace(node, assigned=node.assigned.model_copy(update={"benchmark": None})) for node in play.nodes]
    play.step(renewed)
    assert play.reason != Reason.MEASURING
    assert not [one for one in play.decisions[-1].assignments.values() if one and one.benchmark]


def test_measurements_of_another_runtime_do_not_count(stage: Any) -> None:
    found = stage.release(1)
    play = stage.Play(stage.model(), stage.fleet(2, classes=("one",)))
    play.step(found)
    assert set(measure.results(play.nodes, found.release, ("base-fp32", "base-int8"))) == {"base-fp32", "base-int8"}
    newer = [replace(node, hardware=stage.hardware("one", "2")) for node in play.nodes]
    assert measure.results(newer, found.release, ("base-fp32", "base-int8")) == {}


def test_a_class_where_nothing_fits_stays_as_it_is_and_the_others_go_on(stage: Any) -> None:
    play = stage.Play(stage.model(selection={"constraints": {"maxP95": "1ms"}}), stage.fleet(8))
    play.speeds = {"arm64-b": {"base-fp32": 900, "base-int8": 800}}
    play.run(stage.release(1))
    assert play.condition(ConditionType.DEGRADED) == ("True", Reason.NO_VARIANT_FITS)
    assert {node.hardware_class for node in play.nodes if node.assigned_manifest()} == {"amd64-a"}
    assert (
        "the nearest is base-int8: p95 1600 us"
        in {row.name: row for row in play.model.status.hardware_classes}["arm64-b"].reason
    )


def test_an_outlier_of_its_class_is_named(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(6, classes=("one",))).run(stage.release(1))
    node = play.nodes[2]
    slow = node.status.model_copy(update={"figures": stage.figures(p95_microseconds=50_000)})
    play.nodes[2] = replace(node, status=slow)
    play.step(stage.release(1))
    (worst,) = play.model.status.worst_nodes
    assert (worst.name, worst.state, worst.reason) == ("n2", "Outlier", "SlowerThanItsClass")
    assert "10 ms is usual" in worst.message


def test_measuring_begins_its_own_clock(stage: Any) -> None:
    """A class that turns up late gets its whole time."""
    play = stage.Play(stage.model(selection={"deadline": "30s"}), stage.fleet(2, classes=("one",)))
    play.run(stage.release(1))
    play.measures = False
    play.nodes += [replace(node, name="late", hardware=stage.hardware("two")) for node in stage.fleet(1)]
    play.now += timedelta(hours=1)
    play.step(stage.release(1))
    assert play.model.status.hardware_classes[1].measuring_since is not None
    assert play.nodes[2].assigned_manifest() is None
    play.run(stage.release(1), 10)
    assert play.nodes[2].status.live.variant == "base-fp32"


def test_a_class_that_the_status_has_no_room_for_is_not_waited_for_and_the_others_are(stage: Any) -> None:
    """The status remembers since when a class measures; a fourteenth class cannot be remembered."""
    classes = tuple(f"c{index:02}" for index in range(14))
    play = stage.Play(stage.model(rollout={"maxUnavailable": "100%"}), stage.fleet(28, classes=classes))
    play.run(stage.release(1))
    play.measures = False
    for _ in range(3):
        play.step(stage.release(2))
    assert play.reason == Reason.MEASURING
    waited = [row.name for row in play.model.status.hardware_classes if row.measuring_since]
    assert len(waited) == measure.CLASSES
    play.measures = True
    assert play.run(stage.release(2)).reason == Reason.ROLLED_OUT
