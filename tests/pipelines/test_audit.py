import dataclasses

import pytest

from edgewright_pipelines import audit
from edgewright_pipelines.audit import Candidate, Check, Facts, judge
from edgewright_pipelines.evaluate import Measured
from edgewright_pipelines.latency import Latency
from edgewright_pipelines.prune import Audit as PruningAudit
from edgewright_pipelines.prune import LayerAudit
from edgewright_pipelines.recipe import Audit as Limits
from edgewright_pipelines.scores import Scores

LIMITS = Limits()


def _measured(p50=100.0, **errors):
    energy = {"Fridge": 20.0, "Kettle": 5.0, "Router": 0.01}
    errors = {"Fridge": 0.5, "Kettle": -0.5, "Router": 0.0} | errors
    scores = Scores(9, 3, 0.1, 0.9, 0.9, 0.9, 0.9, dict.fromkeys(energy, 0.9), energy, errors)
    return Measured(1000, 100, 100, Latency(p50, p50 * 2, 10), scores)


def _candidate(name="x-fp32", parent=None, facts=None, p50=100.0, **errors):
    return Candidate(name, parent, facts or Facts(parity=1e-6), _measured(p50, **errors))


def _checks(*others, scored=True, total=LIMITS.energy_growth):
    limits = LIMITS.model_copy(update={"energy_growth": total})
    verdicts = judge([_candidate("base-fp32"), *others], "base-fp32", limits, scored=scored)
    return {name: [finding.check for finding in verdict.findings] for name, verdict in verdicts.items()}


def _pruned(*layers):
    return Facts(1e-6, PruningAudit(0.5, 8, tuple(LayerAudit(*layer) for layer in layers), 10, 5))


def test_a_sound_variant_passes():
    sound = _candidate("b-int8", "base-fp32", Facts(1e-6, noise={"Conv 0": 30.0}), p50=60.0)
    assert _checks(sound) == {"base-fp32": [], "b-int8": []}


def test_a_layer_left_whole_is_refused_and_named():
    verdicts = judge(
        [_candidate("base-fp32"), _candidate(facts=_pruned(("stages.1.0", 48, 24, 24), ("stages.2.0", 64, 32, 64)))],
        "base-fp32",
        LIMITS,
        scored=True,
    )
    (reason,) = verdicts["x-fp32"].reasons
    assert "stages.2.0 kept all 64 channels although 32 should go" in reason
    assert not verdicts["x-fp32"].passed


@pytest.mark.parametrize(
    ("facts", "check"),
    [
        (Facts(2e-4), Check.PARITY),
        (Facts(float("nan")), Check.PARITY),
        (Facts(1e-6, noise={"Conv 0": 30.0, "Gemm 1": 3.0}), Check.ROUNDING),
        (Facts(1e-6, noise={"Conv 0": float("nan")}), Check.ROUNDING),
        (Facts(1e-6, in_float=("Conv 2",)), Check.ROUNDING),
    ],
)
def test_what_the_file_does_wrong_is_refused(facts, check):
    assert _checks(_candidate("b-int8", "base-fp32", facts, p50=50.0))["b-int8"] == [check]


def test_an_int8_file_that_is_slower_than_its_parent_is_refused_and_an_equal_one_is_not():
    slow, equal = (_candidate(f"{p50}-int8", "base-fp32", p50=float(p50)) for p50 in (101, 100))
    assert _checks(slow, equal) == {"base-fp32": [], "101-int8": [Check.SPEED], "100-int8": []}


def test_a_file_without_its_parent_is_refused_whatever_its_place_in_the_list():
    child = _candidate("p-int8", "p-fp32", p50=50.0)
    parent = _candidate("p-fp32", facts=_pruned(("a", 64, 32, 64)))
    assert _checks(child, parent) == {"base-fp32": [], "p-int8": [Check.PARENT], "p-fp32": [Check.LAYERS]}


def test_energy_given_to_the_wrong_appliance_is_refused_although_f1_is_the_same():
    assert _checks(_candidate(Fridge=11.1, Kettle=-11.1))["x-fp32"] == [Check.ENERGY] * 3  # in sum, and for both
    assert _checks(_candidate(Fridge=11.1, Kettle=-11.1), scored=False)["x-fp32"] == []  # made-up days prove nothing


def test_energy_of_one_class_is_judged_by_itself_but_a_tiny_class_is_not_judged_by_a_trifle():
    assert _checks(_candidate(Kettle=-2.0, Fridge=0.0))["x-fp32"] == []
    assert _checks(_candidate(Kettle=-3.1, Fridge=0.0, Router=0.0), total=0.5)["x-fp32"] == [Check.ENERGY]
    assert _checks(_candidate(Router=0.2))["x-fp32"] == []
    assert _checks(_candidate(Router=0.4))["x-fp32"] == [Check.ENERGY]


def test_less_energy_error_than_the_base_has_is_never_refused():
    assert _checks(_candidate(Fridge=0.0, Kettle=0.0))["x-fp32"] == []


def test_facts_survive_a_stage_file():
    facts = dataclasses.replace(_pruned(("a", 8, 4, 8)), noise={"Conv 0": 12.5}, in_float=("Gemm 1",))
    assert audit.remembered(facts.as_json()) == facts
