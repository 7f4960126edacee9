"""The line with a layer that stays whole, and both ways to INT8: what is made, refused, and told."""

from datetime import UTC, datetime

import pytest

from edgewright_contract import names
from edgewright_pipelines import audit, flow, handover
from edgewright_pipelines.audit import Check
from edgewright_pipelines.data import synthetic
from edgewright_pipelines.data.source import Source
from edgewright_pipelines.recipe import Importance, Pruning, Recipe, Scope, Way
from edgewright_pipelines.stages import Stages

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture(scope="module")
def source() -> Source:
    return Source(synthetic.generate(seed=1, devices=2, days=4), synthetic=True)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """Pruning three quarters in multiples of 16 leaves every layer of 16 channels whole."""
    return Recipe.model_validate(
        {
            "name": "tiny",
            "data": {"min_days": 6},
            "window": {"seconds": 256, "hop_seconds": 256},
            "network": {"channels": (16, 16), "kernels": (1, 3), "hidden": 16, "bin_seconds": 16},
            "training": {"steps": 4, "batch": 8},
            "compression": {
                "pruning": (Pruning(importance=Importance.L2, scope=Scope.LOCAL, ratio=0.75),),
                "round_to": 16,
                "finetune_steps": 2,
                "ways": (Way.PTQ, Way.QAT),
                "qat_steps": 2,
            },
        }
    )


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    return Stages(tmp_path_factory.mktemp("stages"))


@pytest.fixture(scope="module")
def result(recipe, source, stages):
    return flow.run(recipe, source, stages, lambda *_: None)


def _findings(result, check):
    return {
        built.name: [finding.sentence for finding in built.verdict.findings if finding.check is check]
        for built in result.variants
    }


def test_ptq_and_qat_stand_beside_each_other_for_every_kept_ratio(result):
    assert [(built.name, built.parent) for built in result.variants] == [
        ("base-fp32", None),
        ("base-int8", "base-fp32"),
        ("base-int8-qat", "base-fp32"),
        ("l2-local-75-fp32", None),
        ("l2-local-75-int8", "l2-local-75-fp32"),
        ("l2-local-75-int8-qat", "l2-local-75-fp32"),
    ]
    assert len({built.onnx for built in result.variants}) == 6


def test_every_variant_has_its_facts(result):
    for built in result.variants:
        assert built.facts.parity < 1e-4
        assert bool(built.facts.noise) == ("int8" in built.name)
        assert built.facts.in_float == ()
        assert (built.facts.pruning is None) == built.name.startswith("base")
        assert built.measured.latency.cpu > 0


def test_a_deliberately_unpruned_layer_is_refused_with_its_children_and_the_rest_is_not(result):
    whole = _findings(result, Check.LAYERS)
    assert whole["base-fp32"] == whole["base-int8"] == []
    assert "kept all 16 channels although 12 should go" in whole["l2-local-75-fp32"][0]
    assert len(whole["l2-local-75-fp32"]) == 4  # two convolutions, the summary and the hidden layer
    assert _findings(result, Check.PARENT)["l2-local-75-int8"] == ["Its FP32 parent l2-local-75-fp32 is not released."]


def test_the_release_holds_only_what_passed_and_its_card_says_why(result):
    unsigned = handover.unsigned(result, created=NOW)
    released = [variant["name"] for variant in unsigned.draft["variants"]]
    assert released == [built.name for built in result.variants if built.verdict.passed]
    assert "base-fp32" in released
    assert not any("l2-local-75" in path for path in unsigned.files)
    card = unsigned.files[names.CARD_FILE].decode()
    assert "**l2-local-75-fp32**: Layer" in card
    assert "kept all 16 channels although 12 should go" in card
    assert "stages.0.0 16: 4 -> 16" in card


def test_each_variant_says_what_it_answered_on_validation_windows(result):
    released = handover.unsigned(result, created=NOW).draft["variants"]
    for variant in released:
        reference = variant["reference"]
        assert reference["windows"] == min(1000, len(result.validation))
        assert sum(reference["confidence"]["counts"]) == sum(reference["meanWatts"]["counts"]) == reference["windows"]
        assert 0 < reference["threshold"] <= 1
    assert len({str(variant["reference"]["meanWatts"]) for variant in released}) == 1, "all saw the same windows"


def test_asking_for_a_refused_variant_alone_is_a_sentence(result):
    with pytest.raises(handover.HandoverError, match=r"no variant passed the audit.*l2-local-75-fp32: Layer"):
        handover.unsigned(result, created=NOW, only=["l2-local-75-fp32"])


def test_a_rerun_takes_everything_from_its_stages(result, recipe, source, stages, monkeypatch):
    monkeypatch.setattr("edgewright_pipelines.prune.shrink", lambda *_, **__: pytest.fail("pruned again"))
    monkeypatch.setattr("edgewright_pipelines.qat.to_int8", lambda *_, **__: pytest.fail("trained again"))
    again = flow.run(recipe, source, stages, lambda *_: None)
    assert [built.onnx for built in again.variants] == [built.onnx for built in result.variants]
    assert [built.facts for built in again.variants] == [built.facts for built in result.variants]


def test_markdown_names_every_variant_once_in_its_table(result):
    lines = audit.markdown(
        [built.candidate() for built in result.variants], {b.name: b.verdict for b in result.variants}
    )
    assert [line.split("|")[1].strip() for line in lines if line.startswith(("| base", "| l2"))] == [
        built.name for built in result.variants
    ]
