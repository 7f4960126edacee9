"""Builders of small fleets and releases, and a play of API server and agents around the pure core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from edgewright_contract.compressedmodel import CompressedModelSpec
from edgewright_contract.compressedmodel_status import CompressedModelStatus
from edgewright_contract.conditions import ConditionType
from edgewright_contract.edgenode import (
    Benchmark,
    Figures,
    Hardware,
    ModelState,
    ModelStatus,
    Served,
)
from edgewright_contract.release import Release
from edgewright_operator.decide import Decision, decide
from edgewright_operator.facts import ModelFacts, NodeFacts, ReleaseFacts, SourceProblem

START = datetime(2026, 1, 5, tzinfo=UTC)  # a Monday
CLASSES = ("amd64-a", "arm64-b")
KEY = "default/nilm"


def digest(text: object) -> str:
    return f"sha256:{text!s:0>64}"


def variant(
    name: str, p50: float, size: int, f1: float | None = 0.9, parent: str | None = None, number: int = 0
) -> dict[str, Any]:
    accuracy = {"macroF1": f1, "dayMacroF1": f1, "accuracy": f1, "bce": 1, "energyError": 0, "perClass": {}}
    return {
        "name": name,
        "file": f"variants/{name}.onnx",
        "digest": digest(f"{number}{size}{int(p50)}"),
        "bytes": size,
        "precision": "int8" if parent else "fp32",
        "parent": parent,
        "parameters": 1,
        "macs": 1,
        "accuracy": None if f1 is None else accuracy,
        "latency": {"p50Microseconds": p50, "p95Microseconds": 2 * p50, "machine": "m", "runtimeVersion": "1"},
        "golden": {"answers": [[0.5, 0.5]], "tolerance": 0.001},
    }


def document(version: int, *variants: dict[str, Any]) -> dict[str, Any]:
    """release.json."""
    plain = variant("base-fp32", 100, 4000, number=version)
    small = variant("base-int8", 50, 1000, 0.89, "base-fp32", number=version)
    return {
        "registeredModel": "nilm-identify",
        "version": version,
        "sequence": 1000 + version,
        "labels": ["Kettle", "Toaster"],
        "window": {"seconds": 64, "hopSeconds": 16},
        "variants": list(variants or (plain, small)),
        "golden": {"digest": digest(1), "count": 1},
        "provenance": {
            "recipeDigest": digest(2),
            "dataDigest": digest(3),
            "synthetic": False,
            "created": "2026-01-01T00:00:00Z",
        },
    }


def release(version: int, *variants: dict[str, Any]) -> ReleaseFacts:
    return ReleaseFacts(Release.model_validate(document(version, *variants)), f"sha256:{version:064x}")


def model(**spec: Any) -> ModelFacts:
    waves = [{"nodes": 1}, {"percent": 50}, {"percent": 100}]
    rollout = {"waves": waves, "soak": "10s", "maxUnavailable": "50%", "gates": {"minSamples": 100}}
    wish: dict[str, Any] = {"source": {"registeredModel": "nilm-identify", "alias": "production"}}
    if "rollout" in spec:
        spec["rollout"] = rollout | spec["rollout"]
    found = CompressedModelSpec.model_validate({**wish, "rollout": rollout, **spec})
    return ModelFacts("default", "nilm", 1, {}, found, CompressedModelStatus())


def hardware(kind: str = CLASSES[0], runtime: str = "1") -> Hardware:
    facts = {"class": kind, "arch": "x", "cpu": "x", "cores": 1, "memoryBytes": 1, "agentVersion": "1"}
    return Hardware.model_validate(facts | {"runtimeVersion": runtime})


def fleet(count: int, offline: int = 0, classes: Sequence[str] = CLASSES) -> list[NodeFacts]:
    return [
        NodeFacts(f"n{index}", {}, index >= offline, hardware(classes[index % len(classes)]), None, None)
        for index in range(count)
    ]


def figures(**changed: Any) -> Figures:
    """What a healthy node says after its replay."""
    usual: dict[str, Any] = {"samples": 400, "effective_samples": 400, "replayed": 400, "errors": 0}
    usual |= {"p50_microseconds": 5_000, "p95_microseconds": 10_000, "agreement": 0.99, "unknown_ratio": 0.05}
    return Figures.model_validate(usual | {"drift": 0.1, "rss_bytes": 60_000_000} | changed)


def answered(node: NodeFacts, state: ModelState, reason: str = "", told: Figures | None = None) -> NodeFacts:
    """What the node's agent says of what it was assigned."""
    assert node.assigned is not None
    live = node.assigned.live
    assert live is not None
    before = node.status.live if node.status else None
    served = Served(version=live.version, manifest=live.manifest, variant=live.variant)
    good = state is ModelState.LIVE
    status = ModelStatus(
        name=KEY,
        state=state,
        reason=reason,
        target=live.manifest,
        live=served if good else before,
        previous=before if good and before != served else node.status.previous if node.status else None,
        benchmark=node.status.benchmark if node.status else [],
        figures=(told or figures()) if good else None,
    )
    return replace(node, status=status)


def benchmarked(node: NodeFacts, found: ReleaseFacts, p50: Mapping[str, int] | None = None) -> NodeFacts:
    """The node measured what it was asked to, as the release says or as `p50` says."""
    assert node.assigned is not None
    asked = node.assigned.benchmark
    assert asked is not None
    entries = []
    for name in asked.variants:
        one = found.release.variant(name)
        micros = (p50 or {}).get(name, round(one.latency.p50_microseconds))
        entry = {"digest": one.digest, "runtimeVersion": "1", "p50Microseconds": micros, "p95Microseconds": 2 * micros}
        entries.append(Benchmark.model_validate(entry | {"rssBytes": 1, "at": "2026-01-01T00:00:00Z"}))
    status = node.status or ModelStatus(name=KEY, state=ModelState.PENDING)
    return replace(node, status=status.model_copy(update={"benchmark": entries}))


class Play:
    """Plays API server and agents around the pure core."""

    def __init__(self, wish: ModelFacts, nodes: list[NodeFacts]) -> None:
        self.model, self.nodes, self.now, self.soaked, self.soaking = wish, nodes, START, 0.0, False
        self.wave: object = None
        self.decisions: list[Decision] = []
        self.speeds: dict[str, dict[str, int]] = {}
        """Hardware class → variant → p50 that its nodes measure."""
        self.measures = True

    def step(self, found: ReleaseFacts | SourceProblem, seconds: float = 5.0) -> Decision:
        self.now += timedelta(seconds=seconds)
        wave = self.model.status.wave
        identity = (self.model.status.release, wave and (wave.index, wave.since))
        if identity != self.wave:
            self.wave, self.soaking = identity, False
            self.soaked = float(wave.soak_elapsed_seconds) if wave else 0.0
        self.soaked += seconds if self.soaking else 0.0
        decision = decide(self.model, found, self.nodes, self.now, self.soaked)
        assert decide(self.model, found, self.nodes, self.now, self.soaked) == decision
        self.soaking = decision.soaking
        self.model = replace(self.model, status=decision.status)
        self.nodes = [
            replace(node, assigned=decision.assignments[node.name]) if node.name in decision.assignments else node
            for node in self.nodes
        ]
        self.decisions.append(decision)
        if self.measures and isinstance(found, ReleaseFacts):
            self._measure(found)
        return decision

    def _measure(self, found: ReleaseFacts) -> None:
        """Every reachable node that was asked to measures at once."""
        self.nodes = [
            benchmarked(node, found, self.speeds.get(node.hardware_class))
            if node.reachable and node.assigned and node.assigned.benchmark
            and node.assigned.benchmark.manifest == found.manifest
            else node
            for node in self.nodes
        ]  # fmt: skip

    def run(self, found: ReleaseFacts | SourceProblem, steps: int = 60, seconds: float = 5.0) -> Play:
        """Steps in which every agent does at once what it is told."""
        for _ in range(steps):
            self.step(found, seconds)
            self.agents()
        return self

    def until(self, found: ReleaseFacts, reason: str, steps: int = 60) -> Play:
        """Steps, agents obeying, until that reason stands."""
        for _ in range(steps):
            self.step(found)
            if self.reason == reason:
                return self
            self.agents()
        raise AssertionError(f"{reason} not within {steps} steps: {self.condition(ConditionType.READY)}")

    def begin(self, found: ReleaseFacts, steps: int = 5) -> Decision:
        """Steps until a node is exposed, with no agent obeying yet."""
        for _ in range(steps):
            decision = self.step(found)
            if self.exposed(found.manifest):
                return decision
        raise AssertionError(f"nobody exposed: {self.condition(ConditionType.READY)}")

    def exposed(self, manifest: str) -> int:
        return sum(node.assigned_manifest() == manifest for node in self.nodes)

    def agents(
        self, state: ModelState = ModelState.LIVE, reason: str = "", told: Figures | None = None, only: object = None
    ) -> None:
        """Every reachable agent that has something to do does it."""
        self.nodes = [
            answered(node, state, reason, told)
            if node.reachable
            and node.assigned_manifest()
            and not node.serves_as_assigned()
            and not node.failed(node.assigned_manifest() or "")  # a refusal holds
            and (only is None or node.name == only)
            else node
            for node in self.nodes
        ]

    def tell(self, told: Figures, manifest: str) -> None:
        """All who serve the release say so now."""
        self.nodes = [
            replace(node, status=node.status.model_copy(update={"figures": told}))
            if node.status and node.serves(manifest)
            else node
            for node in self.nodes
        ]

    def edit(self, **spec: Any) -> None:
        """Another spec, as `kubectl apply` leaves it."""
        self.model = replace(self.model, spec=model(**spec).spec, generation=self.model.generation + 1)

    def note(self, **annotations: str) -> None:
        self.model = replace(self.model, annotations={f"edgewright.dev/{k}": v for k, v in annotations.items()})

    def condition(self, kind: ConditionType) -> tuple[str, str]:
        found = next(entry for entry in self.model.status.conditions if entry.type == kind)
        return found.status.value, found.reason

    @property
    def reason(self) -> str:
        return self.condition(ConditionType.READY)[1]

    @property
    def message(self) -> str:
        return next(entry.message for entry in self.model.status.conditions if entry.type == ConditionType.READY)


@pytest.fixture(scope="session")
def stage() -> SimpleNamespace:
    """The builders above."""
    return SimpleNamespace(
        START=START,
        CLASSES=CLASSES,
        KEY=KEY,
        digest=digest,
        variant=variant,
        document=document,
        release=release,
        model=model,
        hardware=hardware,
        fleet=fleet,
        figures=figures,
        answered=answered,
        benchmarked=benchmarked,
        Play=Play,
    )
