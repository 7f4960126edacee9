"""What a decision leaves in the operator's metrics, and that nothing is left of a model that is gone."""

from __future__ import annotations

import secrets

import pytest
from prometheus_client import REGISTRY

from edgewright_contract.compressedmodel import CompressedModelSpec, Source
from edgewright_contract.compressedmodel_status import (
    CompressedModelStatus,
    Counts,
    GateCheck,
    GateStatus,
    Verdict,
    WaveStatus,
)
from edgewright_contract.conditions import Condition, ConditionStatus, ConditionType
from edgewright_operator import metrics
from edgewright_operator.decide import Decision
from edgewright_operator.facts import ModelFacts

_THEN = "2026-01-01T00:00:00Z"


@pytest.fixture
def model() -> ModelFacts:
    spec = CompressedModelSpec(source=Source(registered_model="nilm", version=1))
    return ModelFacts("site", secrets.token_hex(4), 1, {}, spec, CompressedModelStatus())


def _status(verdict: Verdict, *checks: GateCheck) -> CompressedModelStatus:
    stalled = Condition(
        type=ConditionType.STALLED, status=ConditionStatus.TRUE, reason="GateFailed", last_transition_time=_THEN
    )
    return CompressedModelStatus(
        counts=Counts(total=6, live=3, updating=2, failed=1, offline=0, never_seen=7),
        wave=WaveStatus(index=1, of=3, size=3, exposed=3, since=_THEN, soak_elapsed_seconds=0),
        gate=GateStatus(verdict=verdict, checks=list(checks)),
        conditions=[stalled],
    )


def _series(model: ModelFacts) -> dict[str, float]:
    """`name{other labels}` → value, of this model's series."""
    return {
        f"{sample.name}/{'/'.join(value for key, value in sample.labels.items() if key != 'model')}": sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.labels.get("model") == model.key
    }


def test_counts_wave_conditions_and_gate_are_there_and_go_with_the_model(model: ModelFacts) -> None:
    slow = GateCheck(name="p95Ratio", value=1.5, limit=1.2, samples=300, verdict=Verdict.FAIL)
    silent = GateCheck(name="agreement", value=None, limit=0.95, samples=0, verdict=Verdict.INCONCLUSIVE)
    metrics.decided(model, Decision(_status(Verdict.FAIL, slow, silent)))
    assert _series(model) == {
        "edgewright_nodes/live": 3, "edgewright_nodes/updating": 2, "edgewright_nodes/failed": 1,
        "edgewright_nodes/offline": 0,
        "edgewright_nodes/neverSeen": 7, "edgewright_rollout_wave/": 1, "edgewright_condition/Stalled": 1,
        "edgewright_condition/Ready": 0, "edgewright_condition/Reconciling": 0, "edgewright_condition/Degraded": 0,
        "edgewright_gate_value/p95Ratio": 1.5, "edgewright_gate_limit/p95Ratio": 1.2,
        "edgewright_gate_limit/agreement": 0.95,
    }  # fmt: skip
    metrics.forgotten(model.key)
    assert _series(model) == {}


def test_a_check_that_is_no_longer_made_leaves_no_series(model: ModelFacts) -> None:
    check = GateCheck(name="errors", value=0.5, limit=0.01, samples=9, verdict=Verdict.FAIL)
    metrics.decided(model, Decision(_status(Verdict.FAIL, check)))
    metrics.decided(model, Decision(CompressedModelStatus()))
    assert not [name for name in _series(model) if "gate" in name]
    metrics.forgotten(model.key)


def test_a_verdict_counts_once_however_often_it_is_decided(model: ModelFacts) -> None:
    def counted(verdict: Verdict) -> float:
        return REGISTRY.get_sample_value("edgewright_gate_verdicts_total", {"verdict": verdict}) or 0.0

    metrics.decided(model, Decision(CompressedModelStatus()))
    before = {verdict: counted(verdict) for verdict in Verdict}
    status = _status(Verdict.FAIL)
    metrics.decided(model, Decision(status))
    settled = ModelFacts(model.namespace, model.name, 1, {}, model.spec, status)
    metrics.decided(settled, Decision(status))
    assert {verdict: counted(verdict) - before[verdict] for verdict in Verdict} == {
        verdict: float(verdict is Verdict.FAIL) for verdict in Verdict
    }
    metrics.forgotten(model.key)
