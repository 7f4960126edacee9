"""The way back: at once, fleet-wide, with permits, and independent of everything else."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from edgewright_contract import keys, permit
from edgewright_contract.conditions import ConditionType, Reason
from edgewright_contract.edgenode import ModelState
from edgewright_operator.facts import SourceProblem


@pytest.mark.parametrize("state", [ModelState.REJECTED, ModelState.REVERTED])
def test_vetoes_stop_the_rollout_and_send_the_exposed_back(stage: Any, state: ModelState) -> None:
    play = stage.Play(stage.model(), stage.fleet(8)).run(stage.release(1))
    play.begin(stage.release(2))
    assert play.exposed(stage.release(2).manifest) == 2
    play.agents(state, "SelfTestFailed")
    play.step(stage.release(2))
    assert play.exposed(stage.release(2).manifest) == 0
    assert play.condition(ConditionType.STALLED) == ("True", Reason.GATE_FAILED)
    assert [entry.manifest for entry in play.model.status.quarantined] == [stage.release(2).manifest]
    assert play.model.status.history[0].outcome == "Failed"
    for _ in range(20):
        play.agents()
        play.step(stage.release(2))
        assert play.exposed(stage.release(2).manifest) == 0
    assert play.exposed(stage.release(1).manifest) == 8
    assert "(SelfTestFailed), version 1 stays; `kubectl edgewright unquarantine" in play.message
    counts = play.model.status.counts  # of what runs now, not of the release that was stopped
    assert (counts.live, counts.updating, counts.failed) == (8, 0, 0)


def test_one_veto_asks_a_second_node_and_one_alone_fails_nobody(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(8, classes=("one",))).run(stage.release(1))
    play.begin(stage.release(2))
    (first,) = [node.name for node in play.nodes if node.assigned_manifest() == stage.release(2).manifest]
    play.agents(ModelState.REJECTED, "SelfTestFailed")
    play.step(stage.release(2))
    assert (play.model.status.wave.size, play.exposed(stage.release(2).manifest)) == (2, 2)
    assert "another node is asked" in play.message
    play.run(stage.release(2))
    assert play.reason == Reason.ROLLED_OUT
    assert play.exposed(stage.release(2).manifest) == 8
    assert [(row.name, row.state) for row in play.model.status.worst_nodes] == [(first, "Rejected")]
    assert play.condition(ConditionType.DEGRADED)[0] == "True"


def test_a_node_whose_figures_speak_against_is_named_with_value_and_limit(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(8, classes=("one",))).run(stage.release(1))
    play.begin(stage.release(2))
    (first,) = [node.name for node in play.nodes if node.assigned_manifest() == stage.release(2).manifest]
    play.agents(told=stage.figures(agreement=0.1))
    play.step(stage.release(2))
    (row,) = play.model.status.worst_nodes
    assert (row.name, row.state, row.reason) == (first, "Against", "agreement")
    assert "agreement 0.1, the limit is 0.95" in row.message


def test_a_second_veto_fails_it_at_its_first_wave(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(8, classes=("one",))).run(stage.release(1))
    play.begin(stage.release(2))
    for _ in range(2):
        play.agents(ModelState.REJECTED, "SelfTestFailed")
        play.step(stage.release(2))
    assert play.condition(ConditionType.STALLED) == ("True", Reason.GATE_FAILED)
    assert play.model.status.wave.index == 0
    assert play.exposed(stage.release(2).manifest) == 0


def test_bad_figures_send_everybody_back(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(8)).run(stage.release(1))
    play.begin(stage.release(2))
    play.agents(told=stage.figures(agreement=0.2))
    decision = play.step(stage.release(2))
    assert play.reason == Reason.GATE_FAILED
    assert "agreement" in play.message
    assert {wish.to_manifest for wish in decision.permits.values()} == {stage.release(1).manifest}
    assert {wish.from_sequence for wish in decision.permits.values()} == {1002}
    assert decision.permits.keys() == decision.assignments.keys()
    assert [event.reason for event in decision.events] == [Reason.ROLLING_BACK, Reason.GATE_FAILED]


def test_the_quarantine_names_the_check_where_no_node_is_against_alone(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(24, classes=("one",))).run(stage.release(1))
    play.begin(stage.release(2))
    play.edit(rollout={"waves": [{"nodes": 12}, {"percent": 100}]})
    play.step(stage.release(2))
    play.agents(told=stage.figures(samples=30, effective_samples=30, errors=2))
    play.step(stage.release(2))
    assert play.reason == Reason.GATE_FAILED
    assert [entry.reason for entry in play.model.status.quarantined] == ["errorRate"]


def test_the_first_release_that_fails_is_taken_off(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(4))
    play.begin(stage.release(1))
    play.agents(ModelState.REJECTED, "UnsafeModel")
    decision = play.step(stage.release(1))
    assert set(decision.assignments.values()) == {None}
    assert [node.assigned for node in play.nodes if node.status and node.status.target] == [None, None]
    play.run(stage.release(1), 5)
    assert play.reason == Reason.QUARANTINED
    assert play.exposed(stage.release(1).manifest) == 0


def test_a_second_release_that_fails_before_the_first_is_promoted_leaves_no_node_without_a_model(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(8))
    play.until(stage.release(1), Reason.SOAKING).run(stage.release(1), 4)
    before = {node.name: node.assigned.live for node in play.nodes if node.assigned_manifest()}
    assert len(before) == 4
    play.begin(stage.release(2))
    moved = {node.name for node in play.nodes if node.assigned_manifest() == stage.release(2).manifest}
    assert moved <= before.keys()  # of an abandoned release they go first
    play.agents(ModelState.REJECTED, "SelfTestFailed")
    decision = play.step(stage.release(2))
    assert play.reason == Reason.GATE_FAILED
    assert "what they served before (2)" in play.message
    assert {node.name: node.assigned.live for node in play.nodes if node.assigned_manifest()} == before
    assert decision.permits.keys() == moved
    play.agents()
    play.step(stage.release(2))
    assert (play.model.status.counts.live, play.model.status.counts.failed) == (4, 0)
    assert play.run(stage.release(3)).exposed(stage.release(3).manifest) == 8


def test_the_way_back_is_known_where_no_node_remembers_the_good_release(stage: Any) -> None:
    """The second release was superseded when all had it, and the third fails when all have that."""
    play = stage.Play(stage.model(), stage.fleet(4))
    play.speeds = {"amd64-a": {"base-fp32": 100, "base-int8": 240}, "arm64-b": {"base-fp32": 800, "base-int8": 235}}
    play.run(stage.release(1))
    had = {node.name: node.assigned.live.variant for node in play.nodes}
    for version in (2, 3):
        play.edit(rollout={"waves": [{"percent": 100}], "soak": "10h"})
        play.run(stage.release(version))
        assert play.exposed(stage.release(version).manifest) == 4
    assert {node.status.previous.version for node in play.nodes} == {2}
    play.tell(stage.figures(errors=200), stage.release(3).manifest)
    play.step(stage.release(3))
    assert play.reason == Reason.GATE_FAILED
    assert {node.name: (node.assigned.live.version, node.assigned.live.variant) for node in play.nodes} == {
        name: (1, variant) for name, variant in had.items()
    }


def test_each_node_goes_back_to_the_variant_that_it_had(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(8))
    play.speeds = {"amd64-a": {"base-fp32": 100, "base-int8": 240}}
    play.run(stage.release(1))
    before = {node.name: node.assigned.live for node in play.nodes}
    play.begin(stage.release(2))
    play.agents(ModelState.REVERTED, "Hang")
    play.step(stage.release(2))
    assert {node.name: node.assigned.live for node in play.nodes} == before


def test_the_way_back_needs_no_source_and_reaches_offline_nodes(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(8)).run(stage.release(1))
    play.until(stage.release(2), Reason.SOAKING)
    exposed = [node for node in play.nodes if node.assigned_manifest() == stage.release(2).manifest]
    play.agents()
    status = play.model.status
    bad = {"manifest": stage.release(2).manifest, "reason": "Hang", "since": "2026-01-05T00:00:00Z"}
    play.model = replace(play.model, status=type(status).model_validate({**status.model_dump(), "quarantined": [bad]}))
    play.nodes = [replace(node, reachable=False) if node.name == exposed[0].name else node for node in play.nodes]
    play.step(SourceProblem(Reason.SOURCE_UNAVAILABLE, "away"))
    assert play.exposed(stage.release(2).manifest) == 0
    assert play.exposed(stage.release(1).manifest) == 8


def test_an_alias_that_moves_back_is_a_rollback_with_permits_and_without_waves(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(8)).run(stage.release(1)).run(stage.release(2))
    decision = play.step(stage.release(1))
    assert play.reason == Reason.ALIAS_MOVED_BACK
    assert play.exposed(stage.release(1).manifest) == 8
    assert len(decision.permits) == 8
    play.run(stage.release(1), 5)
    assert play.condition(ConditionType.READY) == ("True", Reason.ROLLED_BACK)
    assert play.model.status.last_good.version == 1
    assert play.step(stage.release(1)).assignments == {}
    assert play.run(stage.release(2)).reason == Reason.ROLLED_OUT  # and forward again


def test_going_back_in_mid_wave_leaves_nobody_behind(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(8)).run(stage.release(1))
    play.until(stage.release(2), Reason.SOAKING)
    play.run(stage.release(1), 3)
    assert play.exposed(stage.release(1).manifest) == 8
    assert play.model.status.quarantined == []


def test_an_older_release_that_was_never_good_here_goes_by_waves_with_permits(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(8)).run(stage.release(5))
    decision = play.begin(stage.release(3))
    assert play.exposed(stage.release(3).manifest) == 2
    assert {wish.from_sequence for wish in decision.permits.values()} == {1005}


def test_a_quarantined_manifest_stays_out_until_it_is_freed_and_is_freed_once(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(4)).run(stage.release(1))
    manifest = stage.release(2).manifest

    def fails() -> None:
        play.begin(stage.release(2))
        play.agents(ModelState.REJECTED, "SelfTestFailed")
        play.step(stage.release(2))
        assert play.reason == Reason.GATE_FAILED

    fails()
    play.run(stage.release(1), 3).run(stage.release(2), 3)  # away and back frees nothing
    assert play.reason == Reason.QUARANTINED
    play.note(unquarantine=manifest)
    assert play.run(stage.release(2), 2).reason == Reason.QUARANTINED
    play.note(unquarantine=f"{manifest}/{play.model.status.quarantined[0].since}")
    fails()  # the annotation still stands
    play.run(stage.release(2), 5)
    assert play.reason == Reason.QUARANTINED


def test_a_node_that_refused_for_want_of_a_permit_gets_one_later(stage: Any) -> None:
    """There was no key when the alias moved back; whoever signs is asked again, for just that step."""
    play = stage.Play(stage.model(), stage.fleet(4)).run(stage.release(1)).run(stage.release(2)).run(stage.release(3))
    before = play.nodes[0].status
    play.step(stage.release(1))
    assert play.exposed(stage.release(1).manifest) == 2  # half of the fleet at once, without measuring first
    back = [node.assigned.live for node in play.nodes if node.assigned_manifest() == stage.release(1).manifest]
    assert {live.variant for live in back} == {"base-fp32"}
    play.agents()
    play.step(stage.release(1))
    assert play.nodes[0].assigned_manifest() == stage.release(1).manifest
    assert {wish.from_sequence for one in play.decisions[-2:] for wish in one.permits.values()} == {1003}
    play.nodes[0] = replace(play.nodes[0], status=before)
    play.agents(ModelState.REJECTED, "Downgrade", only="n0")
    play.agents()
    decision = play.step(stage.release(1))
    assert {name: (one.from_sequence, one.to_manifest) for name, one in decision.permits.items()} == {
        "n0": (1003, stage.release(1).manifest)
    }
    assert decision.assignments["n0"] == play.nodes[0].assigned
    play.nodes[0] = replace(play.nodes[0], status=play.nodes[0].status.model_copy(update={"reason": "BadDigest"}))
    assert play.step(stage.release(1)).permits == {}  # a permit mends no other refusal


def test_a_permit_that_ran_out_before_its_node_came_back_is_signed_anew(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(4)).run(stage.release(1)).run(stage.release(2))
    play.step(stage.release(1))
    key = keys.generate()

    def signed(until: Any) -> None:
        text = permit.sign(
            permit.Permit(
                registered_model="nilm-identify",
                node="n0",
                from_sequence=1002,
                to_manifest=stage.release(1).manifest,
                not_after=int(until.timestamp()),
            ),
            key,
        )
        held = play.nodes[0].assigned.model_copy(update={"permit": text})
        play.nodes[0] = replace(play.nodes[0], assigned=held)

    signed(play.now + timedelta(days=20))
    assert play.step(stage.release(1)).permits == {}
    signed(play.now + timedelta(minutes=5))
    assert play.step(stage.release(1)).permits.keys() == {"n0"}
    play.nodes[0] = replace(play.nodes[0], reachable=False)
    assert play.step(stage.release(1)).permits == {}
