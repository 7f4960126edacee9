"""The pure core: random histories of a small fleet keep the promises, whatever the agents answer."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_contract import names
from edgewright_contract.compressedmodel import CompressedModelSpec, CompressedModelStatus
from edgewright_contract.conditions import ConditionType, Reason
from edgewright_contract.edgenode import Hardware, ModelState, ModelStatus, Served
from edgewright_contract.release import Release
from edgewright_operator.decide import Decision, decide
from edgewright_operator.facts import ModelFacts, NodeFacts, ReleaseFacts, SourceProblem

START = datetime(2026, 1, 1, tzinfo=UTC)
CLASSES = ("amd64-a", "arm64-b")


def variant(name: str, p50: float, size: int, f1: float, parent: str | None = None) -> dict:
    return {
        "name": name,
        "file": f"variants/{name}.onnx",
        "digest": "sha256:" + "0" * 64,
        "bytes": size,
        "precision": "int8" if parent else "fp32",
        "parent": parent,
        "parameters": 1,
        "macs": 1,
        "accuracy": {
            "macroF1": f1,
            "dayMacroF1": f1,
            "accuracy": f1,
            "bce": 1.0,
            "energyError": 0.0,
            "perClass": {},
        },
        "latency": {"p50Microseconds": p50, "p95Microseconds": p50, "machine": "m", "runtimeVersion": "1"},
        "golden": {"answers": [[0.5, 0.5]], "tolerance": 0.001},
    }


def release(version: int, **changes: object) -> ReleaseFacts:
    document = {
        "registeredModel": "nilm-identify",
        "version": version,
        "sequence": 1000 + version,
        "labels": ["Kettle", "Toaster"],
        "window": {"seconds": 64, "hopSeconds": 16},
        "variants": [variant("base-fp32", 100, 4000, 0.9), variant("base-int8", 50, 1000, 0.89, "base-fp32")],
        "golden": {"digest": "sha256:" + "1" * 64, "count": 1},
        "provenance": {
            "recipeDigest": "sha256:" + "2" * 64,
            "dataDigest": "sha256:" + "3" * 64,
            "synthetic": False,
            "created": "2026-01-01T00:00:00Z",
        },
    }
    return ReleaseFacts(Release.model_validate(document | changes), f"sha256:{version:064x}")


def model(**spec: object) -> ModelFacts:
    wish = {
        "source": {"registeredModel": "nilm-identify", "alias": "production"},
        "rollout": {"waves": [{"nodes": 1}, {"percent": 50}, {"percent": 100}], "soak": "10s", "maxUnavailable": "50%"},
    }
    return ModelFacts(
        "default", "nilm", 1, {}, CompressedModelSpec.model_validate(wish | spec), CompressedModelStatus()
    )


def fleet(count: int, offline: int = 0) -> list[NodeFacts]:
    return [
        NodeFacts(
            f"n{index}",
            {},
            index >= offline,
            Hardware.model_validate(
                {
                    "class": CLASSES[index % 2],
                    "arch": "x",
                    "cpu": "x",
                    "cores": 1,
                    "memoryBytes": 1,
                    "agentVersion": "1",
                    "runtimeVersion": "1",
                }
            ),
            None,
            None,
        )
        for index in range(count)
    ]


def answered(node: NodeFacts, state: ModelState, reason: str = "") -> NodeFacts:
    """What the node's agent says of what it was assigned."""
    assert node.assigned is not None
    live = node.assigned.live
    assert live is not None
    before = node.status.live if node.status else None
    served = Served(version=live.version, manifest=live.manifest, variant=live.variant)
    good = state is ModelState.LIVE
    status = ModelStatus(
        name="default/nilm",
        state=state,
        reason=reason,
        target=live.manifest,
        live=served if good else before,
        previous=before if good and before != served else None,
    )
    return replace(node, status=status)


class Fleet:
    """Plays API server and agents around the pure core."""

    def __init__(self, wish: ModelFacts, nodes: list[NodeFacts]) -> None:
        self.model, self.nodes, self.now, self.soaked, self.soaking = wish, nodes, START, 0.0, False
        self.wave: object = None

    def step(self, found: ReleaseFacts | SourceProblem, seconds: float = 5.0) -> Decision:
        self.now += timedelta(seconds=seconds)
        wave = self.model.status.wave
        identity = (self.model.status.release, wave and (wave.index, wave.since))
        if identity != self.wave:
            self.wave, self.soaked, self.soaking = identity, 0.0, False
        self.soaked += seconds if self.soaking else 0.0
        decision = decide(self.model, found, self.nodes, self.now, self.soaked)
        again = decide(self.model, found, self.nodes, self.now, self.soaked)
        assert again == decision
        self.soaking = decision.soaking
        self.model = replace(self.model, status=decision.status)
        self.nodes = [
            replace(node, assigned=decision.assignments[node.name]) if node.name in decision.assignments else node
            for node in self.nodes
        ]
        return decision

    def exposed(self, manifest: str) -> int:
        return sum(node.assigned_manifest() == manifest for node in self.nodes)

    def agents(self, state: ModelState = ModelState.LIVE, reason: str = "") -> None:
        """Every reachable agent that has something to do does it."""
        self.nodes = [
            answered(node, state, reason)
            if node.reachable and node.assigned and not node.serves(node.assigned_manifest() or "")
            else node
            for node in self.nodes
        ]

    def condition(self, kind: ConditionType) -> tuple[str, str]:
        found = next(entry for entry in self.model.status.conditions if entry.type == kind)
        return found.status.value, found.reason


def rolled_out(wish: ModelFacts, nodes: list[NodeFacts], found: ReleaseFacts, steps: int = 60) -> Fleet:
    play = Fleet(wish, nodes)
    for _ in range(steps):
        play.step(found)
        play.agents()
    return play


def test_a_good_release_reaches_every_node_in_waves() -> None:
    play = Fleet(model(), fleet(8))
    sizes = []
    for _ in range(60):
        play.step(release(1))
        assert play.model.status.wave is not None
        sizes.append((play.model.status.wave.index, play.exposed(release(1).manifest)))
        play.agents()
    assert [max(exposed for wave, exposed in sizes if wave == index) for index in range(3)] == [2, 4, 8]
    assert play.condition(ConditionType.READY) == ("True", Reason.ROLLED_OUT)
    assert play.model.status.last_good is not None
    assert [entry.outcome for entry in play.model.status.history] == ["Promoted"]


def test_the_faster_variant_is_chosen_and_one_slower_than_its_parent_never() -> None:
    assert rolled_out(model(), fleet(2), release(1)).model.status.hardware_classes[0].variant == "base-int8"
    slow = release(1, variants=[variant("base-fp32", 100, 4000, 0.9), variant("base-int8", 101, 10, 0.9, "base-fp32")])
    wish = model(selection={"objective": "Size"})
    assert rolled_out(wish, fleet(2), slow).model.status.hardware_classes[0].variant == "base-fp32"


def test_constraints_that_nothing_meets_move_nothing_and_name_the_nearest_miss() -> None:
    play = Fleet(model(selection={"constraints": {"minMacroF1": 0.99}}), fleet(2))
    assert play.step(release(1)).assignments == {}
    assert play.condition(ConditionType.STALLED) == ("True", Reason.NO_VARIANT_FITS)
    assert "minMacroF1 0.99" in play.model.status.conditions[0].message


@pytest.mark.parametrize("state", [ModelState.REJECTED, ModelState.REVERTED])
def test_one_veto_stops_the_rollout_and_sends_the_exposed_back(state: ModelState) -> None:
    play = rolled_out(model(), fleet(8), release(1))
    play.step(release(2))
    exposed = play.exposed(release(2).manifest)
    assert 0 < exposed <= 2
    play.agents(state, "SelfTestFailed")
    play.step(release(2))
    assert play.exposed(release(2).manifest) == 0
    assert play.condition(ConditionType.STALLED) == ("True", Reason.GATE_FAILED)
    assert [entry.manifest for entry in play.model.status.quarantined] == [release(2).manifest]
    for _ in range(20):
        play.agents()
        play.step(release(2))
        assert play.exposed(release(2).manifest) == 0
    assert play.exposed(release(1).manifest) == 8
    freed = {names.ANNOTATION_UNQUARANTINE: release(2).manifest}
    play.model = replace(play.model, annotations=freed)
    play.step(release(2))
    assert play.exposed(release(2).manifest) > 0


def test_other_bytes_under_the_version_that_runs_move_nothing() -> None:
    play = rolled_out(model(), fleet(4), release(1))
    assert play.step(replace(release(1), manifest="sha256:" + "f" * 64)).assignments == {}
    assert play.condition(ConditionType.STALLED) == ("True", Reason.RELEASE_CHANGED)
    assert play.exposed(release(1).manifest) == 4


def test_nothing_moves_without_a_source_or_while_suspended() -> None:
    problem = SourceProblem(Reason.SOURCE_UNAVAILABLE, "MLflow is away")
    play = Fleet(model(), fleet(4))
    assert play.step(problem).assignments == {}
    assert play.condition(ConditionType.STALLED) == ("True", Reason.SOURCE_UNAVAILABLE)
    play = Fleet(model(suspend=True), fleet(4))
    assert play.step(release(1)).assignments == {}


def test_offline_nodes_block_nothing_and_catch_up() -> None:
    play = rolled_out(model(), fleet(6, offline=2), release(1))
    assert play.condition(ConditionType.READY) == ("True", Reason.ROLLED_OUT)
    assert play.model.status.counts is not None
    assert (play.model.status.counts.live, play.model.status.counts.offline) == (4, 2)
    play.nodes = [replace(node, reachable=True) for node in play.nodes]
    for _ in range(20):
        play.step(release(1))
        play.agents()
    assert play.exposed(release(1).manifest) == 6


def test_a_silent_node_pauses_after_its_deadline() -> None:
    wish = model(rollout={"waves": [{"nodes": 1}, {"percent": 100}], "soak": "0s", "nodeDeadline": "20s"})
    play = Fleet(wish, fleet(4))
    for _ in range(10):
        play.step(release(1))
    assert play.condition(ConditionType.STALLED) == ("True", Reason.NODE_DEADLINE)
    assert play.exposed(release(1).manifest) <= 2


def test_a_restart_never_shortens_the_soak() -> None:
    play = Fleet(model(), fleet(1))
    play.step(release(1))
    play.agents()
    play.step(release(1), 9)
    index = play.model.status.wave.index
    for _ in range(5):  # a restart before the checkpoint forgets what was soaked
        play.soaked, play.soaking = 0.0, False
        play.step(release(1), 9)
    assert play.model.status.wave.index == index


Action = st.tuples(
    st.sampled_from([ModelState.LIVE, ModelState.LIVE, ModelState.LIVE, ModelState.REJECTED, None]),
    st.sampled_from([1, 2, 3]),
    st.integers(0, 7),
)


@given(st.integers(1, 8), st.lists(Action, min_size=1, max_size=40))
def test_exposure_never_exceeds_the_wave_and_the_quarantined_never_returns(count: int, actions: list) -> None:
    play = Fleet(model(), fleet(count))
    for state, version, flips in actions:
        found = release(version)
        before = {node.name: node.assigned_manifest() for node in play.nodes}
        decision = play.step(found)
        wave = play.model.status.wave
        newly = [name for name, new in decision.assignments.items() if new.live and new.live.manifest != before[name]]
        if wave is not None and any(decision.assignments[name].live.manifest == found.manifest for name in newly):
            assert play.exposed(found.manifest) <= max(wave.size, sum(v == found.manifest for v in before.values()))
        banned = {entry.manifest for entry in play.model.status.quarantined}
        assert not {decision.assignments[name].live.manifest for name in newly} & banned
        if state is not None:
            play.agents(state)
        chosen = f"n{flips}"
        play.nodes = [
            replace(node, reachable=not node.reachable) if node.name == chosen else node for node in play.nodes
        ]
