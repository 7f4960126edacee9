"""The rollout of one release: waves, soak, deadlines, pauses, edits in mid-wave and nodes that come and go."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from edgewright_contract.compressedmodel_status import Verdict
from edgewright_contract.conditions import ConditionType, Reason
from edgewright_contract.edgenode import ModelState
from edgewright_operator.facts import PrometheusAnswer, SourceProblem

AWAY = SourceProblem(Reason.SOURCE_UNAVAILABLE, "MLflow is away")


def test_a_good_release_reaches_every_node_in_waves(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(8))
    sizes: dict[int, set[tuple[int, int]]] = {}
    for _ in range(60):
        play.step(stage.release(1))
        wave = play.model.status.wave
        sizes.setdefault(wave.index, set()).add((wave.size, play.exposed(stage.release(1).manifest)))
        play.agents()
    assert [max(sizes[index]) for index in range(3)] == [(2, 2), (4, 4), (8, 8)]
    assert play.condition(ConditionType.READY) == ("True", Reason.ROLLED_OUT)
    assert play.model.status.last_good.version == 1
    assert [entry.outcome for entry in play.model.status.history] == ["Promoted"]


def test_a_finished_rollout_decides_the_same_for_ever(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(8)).run(stage.release(1))
    before = play.model.status
    for _ in range(3):
        assert play.step(stage.release(1), 600.0).assignments == {}
    assert play.model.status == before


def test_nothing_moves_without_a_source_or_while_suspended(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(4))
    assert play.step(AWAY).assignments == {}
    assert play.condition(ConditionType.STALLED) == ("True", Reason.SOURCE_UNAVAILABLE)
    play = stage.Play(stage.model(suspend=True), stage.fleet(4))
    assert play.step(stage.release(1)).assignments == {}
    assert play.reason == Reason.SUSPENDED
    play.edit(suspend=False)
    assert play.run(stage.release(1)).reason == Reason.ROLLED_OUT


def test_other_bytes_under_the_version_that_runs_move_nothing(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(4)).run(stage.release(1))
    assert play.step(replace(stage.release(1), manifest="sha256:" + "f" * 64)).assignments == {}
    assert play.condition(ConditionType.STALLED) == ("True", Reason.RELEASE_CHANGED)
    assert play.exposed(stage.release(1).manifest) == 4


def test_no_data_never_promotes_and_pauses_after_its_deadline(stage: Any) -> None:
    play = stage.Play(stage.model(rollout={"gates": {"minSamples": 100, "deadline": "60s"}}), stage.fleet(8))
    silent = stage.figures(samples=0, effective_samples=0, replayed=0, agreement=None)
    for _ in range(60):
        play.step(stage.release(1))
        play.agents(told=silent)
        assert play.exposed(stage.release(1).manifest) <= 2
    assert play.condition(ConditionType.STALLED) == ("True", Reason.GATE_INCONCLUSIVE)
    assert play.model.status.gate.verdict is Verdict.INCONCLUSIVE
    assert play.model.status.paused is not None
    play.tell(stage.figures(), stage.release(1).manifest)
    play.step(stage.release(1))
    assert play.model.status.paused is not None  # a person goes on
    play.note(resume=play.model.status.paused.since)
    assert play.run(stage.release(1)).reason == Reason.ROLLED_OUT


def test_a_pause_that_is_resumed_gives_the_wave_its_whole_time_again(stage: Any) -> None:
    play = stage.Play(stage.model(rollout={"gates": {"minSamples": 100, "deadline": "60s"}}), stage.fleet(8))
    silent = stage.figures(samples=0, effective_samples=0, replayed=0, agreement=None)

    def steps_until_paused() -> int:
        for number in range(60):
            play.step(stage.release(1))
            play.agents(told=silent)
            if play.model.status.paused is not None:
                return number
        return 60

    steps_until_paused()
    first = play.model.status.paused.since
    play.note(resume=first)
    assert 60 / 5 <= steps_until_paused() < 60  # still no data: it waits as long as the deadline
    assert play.model.status.paused.since > first


def test_no_history_waits_as_long_as_the_deadline_and_goes_on_with_data(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(4))
    play.begin(stage.release(1))
    play.agents(told=stage.figures(samples=0, effective_samples=0, replayed=0))
    for _ in range(5):
        play.step(stage.release(1))
    assert play.condition(ConditionType.RECONCILING) == ("True", Reason.GATE_INCONCLUSIVE)
    assert "0 of 100 samples" in play.message
    play.tell(stage.figures(), stage.release(1).manifest)
    assert play.run(stage.release(1)).reason == Reason.ROLLED_OUT


def test_a_failed_gate_pauses_where_the_policy_says_so(stage: Any) -> None:
    play = stage.Play(stage.model(rollout={"onFailure": "Pause"}), stage.fleet(8)).run(stage.release(1))
    play.begin(stage.release(2))
    play.agents(told=stage.figures(agreement=0.1))
    play.step(stage.release(2))
    assert play.condition(ConditionType.STALLED) == ("True", Reason.PAUSED)
    assert play.model.status.quarantined == []
    exposed = play.exposed(stage.release(2).manifest)
    for _ in range(5):
        play.step(stage.release(2))
    assert play.exposed(stage.release(2).manifest) == exposed == 2
    play.note(resume=play.model.status.paused.since)
    play.step(stage.release(2))
    assert play.reason == Reason.PAUSED  # judged anew, and no better


@pytest.mark.parametrize("away", [True, False], ids=["source away", "paused"])
@pytest.mark.parametrize("policy", ["Rollback", "Pause"])
def test_a_rollout_that_stands_still_is_judged_all_the_same(stage: Any, away: bool, policy: str) -> None:
    rules = {"onFailure": policy, "gates": {"minSamples": 100, "deadline": "60s"}}
    play = stage.Play(stage.model(rollout=rules), stage.fleet(8)).run(stage.release(1))
    bad = stage.release(2)
    play.begin(bad)
    play.agents(told=stage.figures(samples=0, effective_samples=0, replayed=0, agreement=None))
    for _ in range(2 if away else 60):
        play.step(bad)
    assert (play.model.status.paused is None) is away
    play.tell(stage.figures(agreement=0.1), bad.manifest)
    for _ in range(3):
        play.step(AWAY if away else bad)
    held = policy == "Pause"
    assert play.exposed(bad.manifest) == (2 if held else 0)
    assert [entry.manifest for entry in play.model.status.quarantined] == ([] if held else [bad.manifest])
    assert play.model.status.last_good.version == 1


def test_offline_nodes_block_nothing_and_catch_up(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(6, offline=2)).run(stage.release(1))
    assert play.condition(ConditionType.READY) == ("True", Reason.ROLLED_OUT)
    assert (play.model.status.counts.live, play.model.status.counts.offline) == (4, 2)
    play.nodes = [replace(node, reachable=True) for node in play.nodes]
    play.run(stage.release(1), 20)
    assert play.exposed(stage.release(1).manifest) == 6
    assert play.reason == Reason.ROLLED_OUT


def test_reachable_offline_and_never_seen_are_counted_apart(stage: Any) -> None:
    nodes = stage.fleet(6, offline=3)
    nodes[0] = replace(nodes[0], seen=False)
    play = stage.Play(stage.model(), nodes).run(stage.release(1))
    counts = play.model.status.counts
    assert (counts.total, counts.live, counts.offline, counts.never_seen) == (6, 3, 2, 1)
    assert [row.state for row in play.model.status.worst_nodes] == ["Offline", "Offline", "NeverSeen"]

    rows = {row.state: row for row in play.model.status.worst_nodes}
    assert rows["Offline"].reason == Reason.STALE
    assert "three intervals" in rows["Offline"].message


def test_offline_and_never_seen_nodes_are_in_no_denominator(stage: Any) -> None:
    """Of 20 nodes 8 can be heard: half of the fleet are 4, and all of it are 8."""
    nodes = stage.fleet(20, offline=12, classes=("one",))
    nodes[:3] = [replace(node, seen=False) for node in nodes[:3]]
    play = stage.Play(stage.model(rollout={"maxUnavailable": "25%"}), nodes)
    manifest, sizes = stage.release(1).manifest, dict[int, int]()
    for _ in range(60):
        play.step(stage.release(1))
        wave = play.model.status.wave
        sizes[wave.index] = max(sizes.get(wave.index, 0), wave.size)
        assert sum(node.unavailable() for node in play.nodes) <= 2  # a quarter of those that can be heard
        play.agents()
    assert sizes == {0: 1, 1: 4, 2: 8}
    assert play.reason == Reason.ROLLED_OUT
    assert play.exposed(manifest) == 8
    assert {check.name: check.samples for check in play.model.status.gate.checks}["nodes"] == 8
    degraded = next(e for e in play.model.status.conditions if e.type == ConditionType.DEGRADED)
    assert (degraded.status, degraded.reason) == ("False", Reason.NODES_OFFLINE)
    assert "12 of 20 are offline" in degraded.message


@pytest.mark.parametrize("good", [False, True])
def test_a_fleet_of_which_nobody_is_heard_waits_and_says_so(stage: Any, good: bool) -> None:
    play = stage.Play(stage.model(), stage.fleet(4))
    if good:
        play.run(stage.release(1))
    play.nodes = [replace(node, reachable=False) for node in play.nodes]
    assert play.step(stage.release(1)).assignments == {}
    assert play.condition(ConditionType.RECONCILING) == ("True", Reason.NODES_OFFLINE)
    play.nodes = [replace(node, reachable=True) for node in play.nodes]
    assert play.run(stage.release(1)).reason == Reason.ROLLED_OUT


def test_without_a_node_the_message_names_label_and_annotation(stage: Any) -> None:
    play = stage.Play(stage.model(), [])
    play.step(stage.release(1))
    assert play.condition(ConditionType.RECONCILING) == ("True", Reason.NO_NODES)
    assert "edgewright.dev/agent=true" in play.message
    assert "edgewright.dev/node-selector of namespace default" in play.message
    play.nodes = stage.fleet(2)
    assert play.run(stage.release(1)).reason == Reason.ROLLED_OUT


def test_a_check_that_cannot_be_made_waits_and_pauses_after_its_deadline(stage: Any) -> None:
    check = {"name": "errors", "query": "up", "max": 1}
    gates = {"minSamples": 100, "deadline": "60s", "prometheus": [check]}
    play = stage.Play(stage.model(rollout={"gates": gates}), stage.fleet(8))
    away = PrometheusAnswer(None, "Prometheus cannot be asked: ConnectError")
    play.model = replace(play.model, prometheus={"errors": away})
    play.until(stage.release(1), Reason.GATE_ERROR)
    assert "prometheus/errors: Prometheus cannot be asked" in play.message
    assert play.model.status.gate.verdict is Verdict.ERROR
    play.run(stage.release(1), 20)
    assert play.condition(ConditionType.STALLED) == ("True", Reason.GATE_ERROR)
    assert play.exposed(stage.release(1).manifest) == 2
    play.model = replace(play.model, prometheus={"errors": PrometheusAnswer(0.5)})
    play.note(resume=play.model.status.paused.since)
    assert play.run(stage.release(1)).reason == Reason.ROLLED_OUT


def test_a_herd_that_returns_is_spread_and_a_new_class_goes_behind_its_canary(stage: Any) -> None:
    play = stage.Play(stage.model(rollout={"maxUnavailable": "10%"}), stage.fleet(10, classes=("one",)))
    play.run(stage.release(1), 120)
    assert play.reason == Reason.ROLLED_OUT
    play.nodes += [replace(node, name=f"x{node.name}") for node in stage.fleet(20, classes=("one",))]
    play.step(stage.release(1))
    assert play.exposed(stage.release(1).manifest) == 13  # 10 % of 30
    play.run(stage.release(1), 60)
    play.edit(rollout={"maxUnavailable": "100%"})
    play.nodes += [replace(node, name=f"y{node.name}") for node in stage.fleet(8, classes=("two",))]
    play.step(stage.release(1))
    play.step(stage.release(1))
    new = [node for node in play.nodes if node.hardware_class == "two"]
    assert sum(node.assigned_manifest() is not None for node in new) == 1
    play.run(stage.release(1), 5)
    assert play.exposed(stage.release(1).manifest) == 38


def test_a_silent_fleet_pauses_after_its_deadline_and_goes_on_when_it_answers(stage: Any) -> None:
    wish = stage.model(rollout={"waves": [{"nodes": 1}, {"percent": 100}], "soak": "0s", "nodeDeadline": "20s"})
    play = stage.Play(wish, stage.fleet(4))
    for _ in range(12):
        play.step(stage.release(1))
    assert play.condition(ConditionType.STALLED) == ("True", Reason.NODE_DEADLINE)
    assert play.exposed(stage.release(1).manifest) == 2
    assert play.run(stage.release(1)).reason == Reason.ROLLED_OUT


def test_one_silent_node_is_passed_by_and_named(stage: Any) -> None:
    play = stage.Play(stage.model(rollout={"nodeDeadline": "20s"}), stage.fleet(8, classes=("one",)))
    play.begin(stage.release(1))
    (mute,) = [node.name for node in play.nodes if node.assigned_manifest()]
    for _ in range(60):
        play.step(stage.release(1))
        for node in list(play.nodes):
            if node.name != mute:
                play.agents(only=node.name)
        assert play.exposed(stage.release(1).manifest) <= play.model.status.wave.size
    assert play.exposed(stage.release(1).manifest) == 8
    assert mute in {row.name for row in play.model.status.worst_nodes} or play.reason == Reason.ROLLING_OUT


@pytest.mark.parametrize("had", [False, True])
def test_a_silent_node_that_takes_up_max_unavailable_is_told_or_passed_by(stage: Any, had: bool) -> None:
    """Empty, it is the one node that may be unavailable; serving what it had, it is no longer being moved."""
    wish = stage.model(rollout={"maxUnavailable": 1, "nodeDeadline": "20s"})
    play = stage.Play(wish, stage.fleet(8, classes=("one",)))
    version = 2 if had else 1
    if had:
        play.run(stage.release(1), 80)
    play.begin(stage.release(version))
    manifest = stage.release(version).manifest
    (mute,) = [node.name for node in play.nodes if node.assigned_manifest() == manifest]
    for _ in range(120):
        play.step(stage.release(version))
        for node in list(play.nodes):
            if node.name != mute:
                play.agents(only=node.name)
    if had:
        assert play.exposed(manifest) == 8
        return
    assert play.condition(ConditionType.STALLED) == ("True", Reason.NODE_DEADLINE)
    assert f"{mute} first" in play.message
    play.agents()
    assert play.run(stage.release(version), 120).reason == Reason.ROLLED_OUT


def test_a_restart_never_shortens_the_soak(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(1))
    play.begin(stage.release(1))
    play.agents()
    play.step(stage.release(1), 9)
    index = play.model.status.wave.index
    for _ in range(5):  # a restart before the checkpoint forgets what was soaked
        play.soaked, play.soaking = 0.0, False
        play.step(stage.release(1), 9)
    assert play.model.status.wave.index == index


def test_the_checkpoint_is_taken_up(stage: Any) -> None:
    play = stage.Play(stage.model(rollout={"soak": "3m"}), stage.fleet(1))
    play.begin(stage.release(1))
    play.agents()
    for _ in range(14):
        play.step(stage.release(1), 10)
    assert play.model.status.wave.soak_elapsed_seconds == 120
    play.wave = None  # a restart: what counts is the checkpoint
    for _ in range(7):
        play.step(stage.release(1), 10)
    assert play.model.status.wave.index == 1


def test_approval_lets_each_wave_begin_and_names_spec_and_manifest(stage: Any) -> None:
    play = stage.Play(stage.model(rollout={"approval": True}), stage.fleet(8))
    play.run(stage.release(1), 10)
    assert play.reason == Reason.WAITING_FOR_APPROVAL
    assert "kubectl edgewright approve nilm -n default" in play.message
    assert play.exposed(stage.release(1).manifest) == 0
    manifest = stage.release(1).manifest
    for wrong in (f"{manifest}/1/1", f"{stage.release(2).manifest}/0/1", f"{manifest}/0/2", "yes"):
        play.note(approve=wrong)
        assert play.run(stage.release(1), 3).exposed(manifest) == 0
    for wave, size in ((0, 2), (1, 4), (2, 8)):
        play.note(approve=f"{manifest}/{wave}/1")
        play.run(stage.release(1), 20)
        assert play.exposed(manifest) == size
    assert play.reason == Reason.ROLLED_OUT


def test_the_maintenance_window_holds_back_moves_but_no_rollback(stage: Any) -> None:
    window = {"days": ["Mon"], "start": "01:00", "end": "02:00", "timeZone": "Europe/Berlin"}
    play = stage.Play(stage.model(rollout={"window": window}), stage.fleet(8))
    play.now = stage.START - timedelta(hours=1, minutes=30)  # Sunday 23:30 in Berlin
    play.run(stage.release(1), 3)
    assert play.reason == Reason.OUTSIDE_WINDOW
    assert "Mon 01:00-02:00 Europe/Berlin" in play.message
    play.now = stage.START + timedelta(minutes=5)  # Monday 01:05 there
    play.begin(stage.release(1))
    play.now += timedelta(hours=2)
    play.agents(ModelState.REJECTED, "SelfTestFailed")
    play.step(stage.release(1))
    assert play.exposed(stage.release(1).manifest) == 0


def test_a_window_in_no_time_zone_is_refused_with_the_field(stage: Any) -> None:
    window = {"days": ["Mon"], "start": "01:00", "end": "02:00", "timeZone": "Europe/Berlinn"}
    play = stage.Play(stage.model(rollout={"window": window}), stage.fleet(2))
    play.step(stage.release(1))
    assert play.condition(ConditionType.STALLED) == ("True", Reason.INVALID_SPEC)
    assert "spec.rollout.window.timeZone" in play.message


def test_at_most_max_unavailable_nodes_are_moved_at_once_over_all_classes(stage: Any) -> None:
    wish = stage.model(rollout={"waves": [{"percent": 100}], "maxUnavailable": 2})
    play = stage.Play(wish, stage.fleet(9, classes=("a", "b", "c")))
    play.begin(stage.release(1))
    for _ in range(4):
        play.step(stage.release(1))
        assert sum(node.unavailable() for node in play.nodes) <= 2
    first = next(node.name for node in play.nodes if node.assigned_manifest())
    play.agents(only=first)
    play.step(stage.release(1))
    assert play.exposed(stage.release(1).manifest) == 3


def test_an_alias_that_moves_on_in_mid_wave_abandons_the_release_under_way(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(8)).run(stage.release(1))
    play.until(stage.release(2), Reason.SOAKING)
    abandoned = {node.name for node in play.nodes if node.assigned_manifest() == stage.release(2).manifest}
    play.begin(stage.release(3))
    taken = {node.name for node in play.nodes if node.assigned_manifest() == stage.release(3).manifest}
    assert taken == abandoned  # they go first
    play.run(stage.release(3))
    assert play.exposed(stage.release(3).manifest) == 8
    outcomes = [(entry.version, entry.outcome) for entry in play.model.status.history]
    assert outcomes == [(3, "Promoted"), (2, "Superseded"), (1, "Promoted")]


def test_back_and_forth_ends_as_if_it_had_been_so_from_the_start(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(8)).run(stage.release(1))
    for version in (2, 3, 2):
        play.run(stage.release(version), 4)
    play.run(stage.release(2))
    straight = stage.Play(stage.model(), stage.fleet(8)).run(stage.release(1)).run(stage.release(2))
    assert [node.assigned.live for node in play.nodes] == [node.assigned.live for node in straight.nodes]
    assert play.reason == straight.reason == Reason.ROLLED_OUT


def test_waves_edited_in_mid_rollout_take_nobody_back(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(10, classes=("one",)))
    play.until(stage.release(1), Reason.SOAKING).run(stage.release(1), 4)
    assert play.exposed(stage.release(1).manifest) == 5
    play.edit(rollout={"waves": [{"nodes": 1}, {"percent": 100}]})
    play.run(stage.release(1))
    assert (play.reason, play.exposed(stage.release(1).manifest)) == (Reason.ROLLED_OUT, 10)


def test_nodes_added_removed_and_made_anew_in_mid_wave(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(8, classes=("one",)))
    play.until(stage.release(1), Reason.SOAKING)
    (canary,) = [node for node in play.nodes if node.assigned_manifest()]
    play.nodes = [node for node in play.nodes if node.name != canary.name]
    play.nodes.append(replace(canary, assigned=None, status=None))  # the same name, a new UID
    play.nodes += [replace(node, name=f"x{node.name}") for node in stage.fleet(4, classes=("one",))]
    for _ in range(60):
        play.step(stage.release(1))
        assert play.exposed(stage.release(1).manifest) <= play.model.status.wave.size
        play.agents()
    assert (play.reason, play.exposed(stage.release(1).manifest)) == (Reason.ROLLED_OUT, 12)


def test_a_node_that_is_no_longer_selected_loses_the_model(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(4)).run(stage.release(1))
    play.nodes[0] = replace(play.nodes[0], selected=False)
    decision = play.step(stage.release(1))
    assert decision.assignments == {"n0": None}
    assert play.model.status.counts.total == 3


def test_what_to_do_when_the_object_goes_is_written_on_the_node(stage: Any) -> None:
    play = stage.Play(stage.model(deletionPolicy="Remove"), stage.fleet(2)).run(stage.release(1))
    assert [node.assigned.removed_with_model for node in play.nodes] == [True, True]


def test_every_sentence_of_a_rollout_names_its_version(stage: Any) -> None:
    """Events of two releases stand below each other."""
    wish = stage.model(rollout={"approval": True, "soak": "10s"})
    play = stage.Play(wish, stage.fleet(8))
    messages = []
    for _ in range(60):
        if play.model.status.wave is not None and play.reason == Reason.WAITING_FOR_APPROVAL:
            wave = play.model.status.wave
            index = wave.index + 1 if wave.size else 0
            play.note(approve=f"{stage.release(1).manifest}/{index}/{play.model.generation}")
        messages += [event.message for event in play.step(stage.release(1)).events]
        play.agents()
    assert play.reason == Reason.ROLLED_OUT
    assert len(messages) > 10
    assert [message for message in messages if not message.startswith("version 1")] == []


def test_events_tell_each_turn_once(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(8)).run(stage.release(1))
    told = [event.reason.value for decision in play.decisions for event in decision.events]
    assert told[:3] == ["Measuring", "RollingOut", "Soaking"]
    assert told.count("RolledOut") == 1
    assert len(told) <= 12


def test_figures_that_change_within_an_interval_cost_no_write(stage: Any) -> None:
    play = stage.Play(stage.model(rollout={"soak": "10m"}), stage.fleet(8))
    play.until(stage.release(1), Reason.SOAKING)
    play.step(stage.release(1))
    before = play.model.status
    play.tell(stage.figures(samples=500, effective_samples=500), stage.release(1).manifest)
    play.step(stage.release(1))
    assert play.model.status == before


@pytest.mark.parametrize("count", [90, 1500])
def test_the_status_is_bounded(stage: Any, count: int) -> None:
    """All that can be long is long: classes, candidates, failures, quarantine, history, PromQL checks."""
    classes = tuple(f"arm64-with-a-rather-long-name-{index}" for index in range(40))
    names = [f"l2-global-25-with-a-long-name-{index}" for index in range(7)]
    variants = [stage.variant("base-fp32", 100, 4000)]
    variants += [stage.variant(name, 90 - i, 3000 - i, 0.9 - i / 100, "base-fp32") for i, name in enumerate(names)]
    prometheus = [{"name": f"check-{index}", "query": "up", "max": 1} for index in range(8)]
    gates = {"minSamples": 1, "prometheus": prometheus, "maxDrift": 1, "maxUnknownRatio": 1}
    wish = stage.model(rollout={"maxUnavailable": "100%", "gates": gates}, selection={"candidates": 8})
    play = stage.Play(wish, stage.fleet(count, count // 5, classes))
    for version in range(1, 25):
        play.begin(stage.release(version, *variants))
        play.agents(ModelState.REJECTED, "SelfTestFailed")
        play.nodes = [
            replace(node, status=node.status.model_copy(update={"message": "x" * 512})) if node.status else node
            for node in play.nodes
        ]
        play.step(stage.release(version, *variants))
    status = play.model.status
    assert (len(status.quarantined), len(status.history), len(status.hardware_classes)) == (20, 10, 12)
    assert len(status.worst_nodes) == 10
    assert len(status.model_dump_json(by_alias=True, exclude_none=True)) < 16_384
