"""One rollout over simulated nodes: the operator's own decisions, and Argo Rollouts' rules on the same figures."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from contained.fault import Fault

from edgewright_contract.compressedmodel import CompressedModelSpec
from edgewright_contract.compressedmodel_status import CompressedModelStatus
from edgewright_contract.conditions import ConditionType, Reason
from edgewright_contract.edgenode import AssignedModel, Figures, Hardware, ModelState, ModelStatus, Served
from edgewright_contract.release import Release
from edgewright_operator import permits
from edgewright_operator.decide import Decision, decide
from edgewright_operator.facts import ModelFacts, NodeFacts, ReleaseFacts

START = datetime(2026, 1, 5, tzinfo=UTC)
CLASSES = ("amd64-n100", "arm64-a72", "arm64-a76")
INTERVAL = 60.0
WINDOW_SECONDS = 4096
RING_WINDOWS = 48 * 3600 // WINDOW_SECONDS
SWAP_SECONDS = 1.0
"""What a simulated agent needs to put its former release back, which it still holds."""
KEY = "default/nilm"
_BEFORE = {"p95": 5000.0, "rss": 60e6}
LIMITS = {"maxErrorRate": 0.01, "maxP95Ratio": 1.2, "minAgreement": 0.95, "maxRssRatio": 1.5}


@dataclass(frozen=True)
class Setting:
    """What a user wrote."""

    nodes: int
    rollout: Mapping[str, Any]


@dataclass
class Outcome:
    """What came of one rollout."""

    aborted: bool
    exposed: int
    """Most nodes that had the release at once."""
    over_wave: bool
    """Whether more nodes than the wave ever had it."""
    seen_after: float
    """Simulated seconds from the first bad figure to the decision that stopped it; nan: never."""
    recovery: float
    """Seconds until every exposed node served the release before again; nan: they never were sent back."""
    argo_after: float
    """Simulated seconds from the same figure to the measurement at which Argo's rules abort; nan: never."""

    @property
    def argo_aborted(self) -> bool:
        """Whether Argo's rules stop it."""
        return math.isfinite(self.argo_after)


@dataclass
class Argo:
    """An AnalysisRun over the mean of the exposed nodes, once an interval: failureLimit 0, consecutiveErrorLimit 4."""

    errors: int = 0
    aborted: bool = False

    def look(self, told: list[Figures]) -> None:
        """One measurement of each metric; a metric without data is an error, as in Argo."""
        if not told:
            self.errors += 1
        else:
            self.errors = 0
            windows = sum(max(one.samples, one.errors) for one in told)
            rates = (
                sum(one.errors for one in told) / max(1, windows) > LIMITS["maxErrorRate"],
                mean([one.p95_microseconds / _BEFORE["p95"] for one in told]) > LIMITS["maxP95Ratio"],
                mean([one.agreement or 0.0 for one in told]) < LIMITS["minAgreement"],
                mean([one.rss_bytes / _BEFORE["rss"] for one in told]) > LIMITS["maxRssRatio"],
            )
            self.aborted |= any(rates)
        self.aborted |= self.errors > 4

    def going_on(self, told: list[Figures], since: float) -> float:
        """Its next ten measurements of the same figures, had nobody stopped it; seconds until it aborts, or nan."""
        for number in range(10):
            if self.aborted:
                return since + number * INTERVAL
            self.look(told)
        return math.nan


@dataclass
class Simulation:
    """One rollout over simulated nodes; API server, agents and time are played."""

    setting: Setting
    fault: Fault | None
    rng: random.Random
    key_file: Path
    now: datetime = START
    soaked: float = 0.0
    soaking: bool = False
    wave: object = None
    model: ModelFacts = field(init=False)
    nodes: list[NodeFacts] = field(init=False)
    traits: dict[str, float] = field(default_factory=dict)
    live_since: dict[str, datetime] = field(default_factory=dict)
    told_at: dict[str, datetime] = field(default_factory=dict)

    def __post_init__(self) -> None:
        spec = {"source": {"registeredModel": "nilm", "alias": "production"}, "selection": {"variant": "base"}}
        wish = CompressedModelSpec.model_validate({**spec, "rollout": dict(self.setting.rollout)})
        old, first = _release(1), {"version": 1, "manifest": _release(1).manifest, "variant": "base"}
        status = CompressedModelStatus.model_validate(
            {name: {"version": 1, "sequence": 1001, "manifest": old.manifest} for name in ("release", "lastGood")}
        )
        self.model = ModelFacts("default", "nilm", 1, {}, wish, status)
        self.nodes = []
        for index in range(self.setting.nodes):
            name = f"n{index:04}"
            self.traits[name] = math.exp(self.rng.gauss(0, 0.08))
            live = {**first, "sequence": 1001}
            assigned = {"name": KEY, "registeredModel": "nilm", "live": live}
            node = NodeFacts(name, {}, True, _hardware(index), None, None)
            entry = {"name": KEY, "state": "Live", "target": old.manifest, "live": first}
            serving = ModelStatus.model_validate(entry | {"figures": self._healthy(name, 0.0)})
            self.nodes.append(replace(node, assigned=AssignedModel.model_validate(assigned), status=serving))

    def run(self, step: float, most: int) -> Outcome:
        """Until it is promoted or stopped, `most` steps at most."""
        bad, argo, exposed, over, first_bad = _release(2), Argo(), 0, False, None
        looked = START
        for _ in range(most):
            self.now += timedelta(seconds=step)
            told = self._agents(bad.manifest)
            if first_bad is None and self.fault and self._shows(bad.manifest, told):
                first_bad = self.now
            began = time.perf_counter()
            decision = self._decide(bad)
            count = sum(node.assigned_manifest() == bad.manifest for node in self.nodes)
            exposed = max(exposed, count)
            over |= decision.status.wave is not None and count > decision.status.wave.size
            if (self.now - looked).total_seconds() >= INTERVAL and exposed and not argo.aborted:
                looked = self.now
                argo.look(told)
            reason = _reason(decision)
            if reason == Reason.GATE_FAILED:
                computing = time.perf_counter() - began
                after = (self.now - first_bad).total_seconds() if first_bad else 0.0
                late = argo.going_on(told, after)
                back = all(node.assigned_manifest() != bad.manifest for node in self.nodes)
                recovery = computing + SWAP_SECONDS if back else math.nan
                return Outcome(True, exposed, over, after, recovery, late)
            if reason == Reason.ROLLED_OUT or decision.status.paused:
                break
        promoted = self.model.status.last_good is not None and self.model.status.last_good.version == 2
        return Outcome(not promoted, exposed, over, math.nan, math.nan, 0.0 if argo.aborted else math.nan)

    def _decide(self, found: ReleaseFacts) -> Decision:
        wave = self.model.status.wave
        identity = (self.model.status.release, wave and (wave.index, wave.since))
        if identity != self.wave:
            self.wave, self.soaked, self.soaking = identity, 0.0, False
        decision = decide(self.model, found, self.nodes, self.now, self.soaked)
        moves, _ = permits.attached(decision.assignments, decision.permits, self.key_file, self.now)
        self.soaking = decision.soaking
        self.model = replace(self.model, status=decision.status)
        if moves:
            self.nodes = [replace(one, assigned=moves[one.name]) if one.name in moves else one for one in self.nodes]
        return decision

    def _agents(self, manifest: str) -> list[Figures]:
        """Time passes on the nodes: who was assigned the release goes live, reports, or crashes."""
        if self.soaking:
            self.soaked += INTERVAL if self.setting.nodes < 1000 else 5.0
        told, after = [], []
        for node in self.nodes:
            if node.assigned_manifest() == manifest:
                node = self._exposed(node, manifest)
                if (figures := node.figures(manifest)) is not None:
                    told.append(figures)
            after.append(node)
        self.nodes = after
        return told

    def _exposed(self, node: NodeFacts, manifest: str) -> NodeFacts:
        status = node.status
        assert status is not None
        if node.failed(manifest):
            return node
        if not node.serves(manifest):
            self.live_since[node.name] = self.now
        elif (self.now - self.told_at[node.name]).total_seconds() < INTERVAL:
            return node
        self.told_at[node.name] = self.now
        age = (self.now - self.live_since[node.name]).total_seconds()
        if self.fault is Fault.CRASHING and self.rng.random() < 0.9:
            state = {"state": ModelState.REVERTED, "reason": "CrashLoop", "target": manifest, "figures": None}
            return replace(node, status=status.model_copy(update=state))
        served = Served(version=2, manifest=manifest, variant="base")
        before = status.live if status.live and status.live.manifest != manifest else status.previous
        changes = {"state": ModelState.LIVE, "target": manifest, "live": served, "previous": before}
        figures = Figures.model_validate(self._spoiled(node.name, age))
        return replace(node, status=status.model_copy(update={**changes, "figures": figures}))

    def _healthy(self, name: str, age: float) -> dict[str, Any]:
        """Figures that scatter between nodes and between looks."""
        effective = RING_WINDOWS + int(age // WINDOW_SECONDS)
        samples = RING_WINDOWS + int(age // INTERVAL)
        return {
            "samples": samples,
            "effectiveSamples": effective,
            "replayed": RING_WINDOWS,
            "errors": _binomial(self.rng, samples, 0.0005),
            "p50Microseconds": 3000,
            "p95Microseconds": round(_BEFORE["p95"] * self.traits[name] * math.exp(self.rng.gauss(0, 0.06))),
            "agreement": 1 - _binomial(self.rng, effective, 0.015) / effective,
            "rssBytes": round(60e6 * math.exp(self.rng.gauss(0, 0.03))),
        }

    def _spoiled(self, name: str, age: float) -> dict[str, Any]:
        told = self._healthy(name, age)
        samples, effective = told["samples"], told["effectiveSamples"]
        match self.fault:
            case Fault.SLOW:
                told["p95Microseconds"] = round(told["p95Microseconds"] * 2.5)
            case Fault.WRONG:
                told["agreement"] = _binomial(self.rng, effective, 0.4) / effective
            case Fault.NAN:
                told["errors"] = _binomial(self.rng, samples, 0.3)
            case Fault.DRIFTING:  # it begins as it should and gets worse by 15 points an interval
                told["agreement"] = max(0.0, told["agreement"] - 0.15 * age / INTERVAL)
            case Fault.MEMORY:
                told["rssBytes"] = round(told["rssBytes"] * 3)
        return told

    def _shows(self, manifest: str, told: list[Figures]) -> bool:
        """Whether any figure is beyond its limit, or a node has refused: from here on it can be seen."""
        vetoed = any(node.failed(manifest) for node in self.nodes)
        return vetoed or any(
            one.errors > 0.01 * one.samples
            or (one.agreement or 0) < 0.85
            or one.p95_microseconds > 1.5 * _BEFORE["p95"]
            or one.rss_bytes > 1.5 * _BEFORE["rss"]
            for one in told
        )


def _release(version: int) -> ReleaseFacts:
    digest = "sha256:" + "1" * 64
    latency = {"p50Microseconds": 3000, "p95Microseconds": 5000, "machine": "m", "runtimeVersion": "1"}
    variant = {"name": "base", "file": "variants/base.onnx", "digest": digest, "bytes": 1000, "precision": "fp32"}
    variant |= {"parameters": 1, "macs": 1, "accuracy": None, "latency": latency}
    document = {
        "registeredModel": "nilm",
        "version": version,
        "sequence": 1000 + version,
        "labels": ["kettle", "fridge"],
        "window": {"seconds": WINDOW_SECONDS, "hopSeconds": 60},
        "variants": [variant | {"golden": {"answers": [[0.5, 0.5]], "tolerance": 0.001}}],
        "golden": {"digest": digest, "count": 1},
        "provenance": {"recipeDigest": digest, "dataDigest": digest, "synthetic": True, "created": "2026-01-01"},
    }
    return ReleaseFacts(Release.model_validate(document), f"sha256:{version:064x}")


def _hardware(index: int) -> Hardware:
    facts = {"class": CLASSES[index % len(CLASSES)], "arch": "x", "cpu": "x", "cores": 4, "memoryBytes": 2**31}
    return Hardware.model_validate(facts | {"agentVersion": "1", "runtimeVersion": "1"})


def _reason(decision: Decision) -> str:
    return next(entry.reason for entry in decision.status.conditions if entry.type is ConditionType.READY)


def _binomial(rng: random.Random, number: int, rate: float) -> int:
    return sum(rng.random() < rate for _ in range(number))


def mean(values: list[Any]) -> float:
    return sum(values) / len(values) if values else 0.0
