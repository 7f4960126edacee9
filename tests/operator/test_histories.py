"""Random histories through the pure core: whatever agents, MLflow, people and the network do, the promises hold."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewright_contract.compressedmodel_status import Verdict
from edgewright_contract.conditions import ConditionStatus, ConditionType, Reason
from edgewright_contract.edgenode import ModelState
from edgewright_operator.decide import Decision, decide
from edgewright_operator.facts import SourceProblem

VERSIONS = (1, 2, 3)
HISTORIES = int(os.environ.get("EDGEWRIGHT_HISTORIES", "1500"))
"""How many random histories; 3,000 take 14 s on an idle core."""
ROUNDS = 4
"""After so many a decision must have come to rest."""


@dataclass
class Checker:
    """Records what each decision wrote and asserts what must never happen; told of every step."""

    stage: Any
    play: Any
    promoted: set[str] = field(default_factory=set)

    def step(self, found: Any) -> Decision:
        before = {node.name: node for node in self.play.nodes}
        old = self.play.model.status
        decision = self.play.step(found)
        self._exposure(before, decision)
        self._evidence(old, decision)
        self._sequences(before, decision)
        self._quarantine(decision)
        self._conditions(decision)
        self._rest(found)
        return decision

    def _exposure(self, before: Any, decision: Decision) -> None:
        """Never more nodes than the status that was written first allows."""
        status = decision.status
        if status.wave is None or status.release is None:
            return
        manifest = status.release.manifest
        new = [
            name
            for name, entry in decision.assignments.items()
            if entry and entry.live and entry.live.manifest == manifest and before[name].assigned_manifest() != manifest
        ]
        if new:
            assert self.play.exposed(manifest) <= status.wave.size
            assert self.play.exposed(manifest) == status.wave.exposed
            assert status.wave.size > 0

    def _evidence(self, old: Any, decision: Decision) -> None:
        """Promoted only with a gate that passed and nodes that serve it, and that gave samples."""
        status = decision.status
        if status.last_good == old.last_good or status.last_good is None:
            return
        manifest = status.last_good.manifest
        if status.history and status.history[0].reason == Reason.ALIAS_MOVED_BACK:
            assert manifest in self.promoted
            return
        assert status.gate is not None
        assert status.gate.verdict is Verdict.PASS
        serving = [node for node in self.play.nodes if node.figures(manifest)]
        needed = self.play.model.spec.rollout.gates.min_samples
        assert sum(node.figures(manifest).effective_samples for node in serving) >= needed
        self.promoted.add(manifest)

    def _sequences(self, before: Any, decision: Decision) -> None:
        """An assignment to a lower sequence has a permit that fits the step."""
        for name, entry in decision.assignments.items():
            live = before[name].assigned.live if before[name].assigned else None
            if entry is None or entry.live is None or live is None or entry.live.sequence >= live.sequence:
                continue
            wish = decision.permits[name]
            assert (wish.node, wish.from_sequence, wish.to_manifest) == (name, live.sequence, entry.live.manifest)

    def _quarantine(self, decision: Decision) -> None:
        banned = {entry.manifest for entry in decision.status.quarantined}
        given_ = {entry.live.manifest for entry in decision.assignments.values() if entry and entry.live}
        assert not given_ & banned
        if not self.play.model.spec.suspend:
            assert not {node.assigned_manifest() for node in self.play.nodes if node.selected} & banned

    def _rest(self, found: Any) -> None:
        """With nothing new, deciding on what was decided soon changes nothing more."""
        model, assigned = self.play.model, {node.name: node.assigned for node in self.play.nodes}
        for _ in range(ROUNDS):
            nodes = [replace(node, assigned=assigned[node.name]) for node in self.play.nodes]
            wave = model.status.wave
            same = (model.status.release, wave and (wave.index, wave.since)) == self.play.wave
            again = decide(model, found, nodes, self.play.now, self.play.soaked if same else 0.0)
            if again.status == model.status and assigned | again.assignments == assigned:
                return
            model, assigned = replace(model, status=again.status), assigned | again.assignments
        raise AssertionError(f"after {ROUNDS} rounds it still decides something new: {again}")

    def _conditions(self, decision: Decision) -> None:
        """All four, of this generation, and never ready and stalled at once (kstatus)."""
        found = {entry.type: entry for entry in decision.status.conditions}
        assert len(found) == 4
        assert {entry.observed_generation for entry in found.values()} == {self.play.model.generation}
        true = {kind for kind, entry in found.items() if entry.status is ConditionStatus.TRUE}
        assert len(true & {ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED}) == 1


Action = st.one_of(
    st.tuples(st.just("agents"), st.sampled_from(["good", "good", "good", "bad", "silent", "veto"])),
    st.tuples(st.just("one agent"), st.tuples(st.integers(0, 9), st.sampled_from(["good", "bad", "veto"]))),
    st.tuples(st.just("flip"), st.integers(0, 9)),
    st.tuples(st.just("select"), st.integers(0, 9)),
    st.tuples(st.just("anew"), st.integers(0, 9)),
    st.tuples(st.just("alias"), st.sampled_from(VERSIONS)),
    st.tuples(st.just("away"), st.none()),
    st.tuples(st.just("suspend"), st.booleans()),
    st.tuples(st.just("waves"), st.sampled_from([[{"percent": 100}], [{"nodes": 2}, {"percent": 100}]])),
    st.tuples(st.just("policy"), st.sampled_from(["Rollback", "Pause"])),
    st.tuples(st.just("free"), st.none()),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([5.0, 60.0, 4000.0])),
)


@dataclass
class World:
    """What the actions act upon."""

    stage: Any
    check: Checker
    found: Any
    spec: dict[str, Any] = field(default_factory=dict)

    def act(self, kind: str, value: Any) -> None:
        play, stage = self.check.play, self.stage
        match kind:
            case "agents":
                self._agents(value, None)
            case "one agent":
                self._agents(value[1], f"n{value[0]}")
            case "flip" | "select" | "anew":
                self._node(kind, f"n{value}")
            case "alias":
                self.found = stage.release(value)
            case "away":
                self.found = SourceProblem(Reason.SOURCE_UNAVAILABLE, "away")
            case "suspend":
                self._edit(suspend=value)
            case "waves" | "policy":
                rollout = self.spec.get("rollout", {}) | {"waves" if kind == "waves" else "onFailure": value}
                self._edit(rollout=rollout)
            case "free" if play.model.status.quarantined:
                entry = play.model.status.quarantined[0]
                play.note(unquarantine=f"{entry.manifest}/{entry.since}")
            case "free" if play.model.status.paused:
                play.note(resume=play.model.status.paused.since)
            case "restart":
                play.wave = None
            case "wait":
                self.check.step(self.found)
                play.now += timedelta(seconds=value)

    def _agents(self, mood: str, only: str | None) -> None:
        stage, play = self.stage, self.check.play
        silent = stage.figures(samples=0, effective_samples=0, replayed=0, agreement=None)
        told = {"bad": stage.figures(agreement=0.2, errors=200), "silent": silent}.get(mood)
        if mood == "veto":
            play.agents(ModelState.REJECTED, "SelfTestFailed", only=only)
        else:
            play.agents(told=told, only=only)

    def _node(self, kind: str, name: str) -> None:
        changed = {
            "flip": lambda node: replace(node, reachable=not node.reachable),
            "select": lambda node: replace(node, selected=not node.selected),
            "anew": lambda node: replace(node, assigned=None, status=None),
        }[kind]
        nodes = self.check.play.nodes
        self.check.play.nodes = [changed(node) if node.name == name else node for node in nodes]

    def _edit(self, **spec: Any) -> None:
        self.spec |= spec
        self.check.play.edit(**self.spec)


def _world(stage: SimpleNamespace, count: int) -> World:
    play = stage.Play(stage.model(), stage.fleet(count))
    return World(stage, Checker(stage, play), stage.release(1))


@settings(max_examples=HISTORIES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(count=st.integers(1, 10), actions=st.lists(Action, min_size=1, max_size=25))
def test_whatever_happens_the_promises_hold(stage: SimpleNamespace, count: int, actions: list[Any]) -> None:
    world = _world(stage, count)
    for kind, value in actions:
        world.act(kind, value)
        world.check.step(world.found)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(count=st.integers(1, 8), actions=st.lists(Action, max_size=15), final=st.sampled_from(VERSIONS))
def test_once_all_is_well_it_converges_and_then_writes_nothing(
    stage: SimpleNamespace, count: int, actions: list[Any], final: int
) -> None:
    """Faults end, everybody obeys: the release that is asked for serves everywhere, unless it is in quarantine."""
    world = _world(stage, count)
    for kind, value in actions:
        world.act(kind, value)
        world.check.step(world.found)
    play = world.check.play
    world._edit(suspend=False)
    play.nodes = [replace(node, reachable=True, selected=True) for node in play.nodes]
    play.nodes = [node if not _refused(node) else replace(node, assigned=None, status=None) for node in play.nodes]
    world.found = stage.release(final)
    for _ in range(80):
        world.act("free", None) if play.model.status.paused else None
        world.check.step(world.found)
        play.agents()
        play.tell(stage.figures(), world.found.manifest)
    settled = play.reason in (Reason.ROLLED_OUT, Reason.ROLLED_BACK)
    assert settled or play.reason == Reason.QUARANTINED, (play.reason, play.message)
    if settled:
        assert play.exposed(world.found.manifest) == count
    before = play.model.status
    assert world.check.step(world.found).assignments == {}
    assert play.model.status == before


def _refused(node: Any) -> bool:
    return node.status is not None and node.status.state in (ModelState.REJECTED, ModelState.REVERTED)


def test_the_checker_notices_what_must_not_be(stage: SimpleNamespace) -> None:
    world = _world(stage, 8)
    play = world.check.play
    play.until(stage.release(1), Reason.SOAKING)
    wave = play.model.status.wave.model_copy(update={"size": 1})
    broken = replace(play.decisions[1], status=play.model.status.model_copy(update={"wave": wave}))
    entry = play.nodes[0].assigned or next(node.assigned for node in play.nodes if node.assigned_manifest())
    fresh = {node.name: replace(node, assigned=None) for node in play.nodes}
    with pytest.raises(AssertionError):
        world.check._exposure(fresh, replace(broken, assignments={"n0": entry}))
    good = play.model.status.model_copy(update={"last_good": play.model.status.release, "gate": None})
    with pytest.raises(AssertionError):
        world.check._evidence(play.model.status, replace(broken, status=good))
