"""The second task: mixtures with an exact truth, the field's figures, and the same line up to the release."""

from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from edgewright_pipelines import disaggregate, flow, handover, mixing, networks, qat, quantize, sampling
from edgewright_pipelines.data import synthetic
from edgewright_pipelines.data.source import Source
from edgewright_pipelines.disaggregate import Disaggregate
from edgewright_pipelines.mixing import MixtureSet
from edgewright_pipelines.recipe import Importance, Pruning, Recipe, Scope, TaskName, Way
from edgewright_pipelines.session import opened
from edgewright_pipelines.stages import Stages
from edgewright_pipelines.windows import WindowSet


def _singles():
    """Constant loads of 10, 100 and 1,000 W, and a class that is off."""
    levels = [10, 100, 1000, 0]
    watts = np.repeat(np.array(levels, np.uint16)[:, None], 64, axis=1)
    return WindowSet(watts, np.arange(4, dtype=np.int16), np.zeros(4, np.int32), ("day",), ("a", "b", "c", "d"))


def test_a_mixture_is_the_sum_of_its_parts_plus_a_floor_that_belongs_to_none():
    mixed = mixing.mixtures(_singles(), 200, seed=1)
    rest = mixed.watts.mean(axis=1) - mixed.truth.sum(axis=1)
    assert (rest > -2).all()
    assert (rest < mixing.BASE_WATTS + 2).all()
    assert set(np.unique(mixed.truth)) == {0.0, 10.0, 100.0, 1000.0}
    assert (mixed.truth[:, 3] == 0).all()  # an appliance that draws nothing is off


def test_a_realistic_number_runs_together_and_never_more_than_there_are():
    counts = mixing.how_many(5000, 16, np.random.default_rng(0))
    assert counts.min() == 1
    assert counts.max() == mixing.MOST
    assert counts.mean() == pytest.approx(3.0, abs=0.1)
    assert mixing.how_many(500, 2, np.random.default_rng(0)).max() == 2


def test_the_same_seed_mixes_the_same():
    first, again, other = (mixing.mixtures(_singles(), 20, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.watts, again.watts)
    assert not np.array_equal(first.watts, other.watts)


def test_an_empty_side_cannot_be_mixed():
    with pytest.raises(ValueError, match="no windows to mix"):
        mixing.mixtures(_singles().select(np.zeros(4, bool)), 5, seed=1)


def test_training_mixtures_hold_the_truth_of_their_parts(tiny_split, tiny_recipe):
    parts = sampling.sampler(tiny_split.train, tiny_split.classes, 256, tiny_recipe.training.augmentation)
    watts, truth = mixing.Mixer(parts, 3).draw(64, np.random.default_rng(0))
    assert watts.shape == (64, 1, 256)
    rest = watts.mean(axis=(1, 2)) - truth.sum(axis=1)
    assert (truth > 0).sum(axis=1).max() >= 2
    assert np.median(rest) == pytest.approx(mixing.BASE_WATTS / 2, abs=10)


def _mixed(truth):
    truth = np.array(truth, np.float32)
    count, classes = truth.shape
    names = ("a", "b", "c")[:classes]
    return MixtureSet(
        np.zeros((count, 3600), np.uint16),
        truth.argmax(1).astype(np.int16),
        np.arange(count, dtype=np.int32),
        tuple(map(str, range(count))),
        names,
        truth,
    )


def test_figures_of_a_case_that_can_be_counted_by_hand():
    mixed = _mixed([[100, 0], [200, 50], [0, 50], [0, 0]])
    probability = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.9], [0.1, 0.1]])
    watts = np.array([[110.0, 0.0], [150.0, 0.0], [30.0, 50.0], [0.0, 0.0]])
    found = disaggregate.measured(probability, watts, mixed)
    assert found.f1_by_class == {"a": pytest.approx(4 / 5), "b": pytest.approx(2 / 3)}
    assert found.macro_f1 == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert found.accuracy == 0.5  # the first and the last window
    assert found.mae_watts == pytest.approx((10 + 50 + 50 + 30) / 8)
    assert found.sae == pytest.approx((10 / 300 + 50 / 100) / 2)
    assert found.match_rate == pytest.approx((100 + 150 + 50) / (110 + 200 + 50 + 30 + 50))
    assert found.energy_kwh == {"a": pytest.approx(0.3), "b": pytest.approx(0.1)}
    assert found.energy_error_kwh == {"a": pytest.approx(-0.01), "b": pytest.approx(-0.05)}


def test_right_answers_are_perfect_and_the_loss_is_least_there():
    mixed = _mixed([[100, 0, 7], [200, 50, 0]])
    on = (mixed.truth > 0).astype(float)
    found = disaggregate.measured(on, mixed.truth, mixed)
    assert (found.macro_f1, found.mae_watts, found.sae, found.match_rate) == (1.0, 0.0, 0.0, 1.0)
    task, truth = Disaggregate(), torch.from_numpy(mixed.truth)
    right = torch.cat(((truth > 0) * 40.0 - 20.0, torch.log1p(truth)), dim=1)
    assert task.loss(right, truth) < 1e-6
    assert task.distance(right, right) < 1e-6
    for column in range(6):
        wrong = right.clone()
        wrong[:, column] += torch.where(wrong[:, column] > 0, -30.0, 30.0)
        if column < 3 or (truth[:, column - 3] > 0).any():
            assert task.loss(wrong, truth) > 0.1
            assert task.distance(wrong, right) > 0.1


def test_single_windows_are_refused():
    with pytest.raises(TypeError, match="mix them first"):
        Disaggregate().truth(_singles())


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny-sum",
            "task": TaskName.DISAGGREGATE,
            "data": {"min_days": 6},
            "window": {"seconds": 256, "hop_seconds": 256},
            "network": {"channels": (16, 16), "kernels": (1, 3), "hidden": 16, "bin_seconds": 16},
            "training": {"steps": 30, "batch": 16},
            "compression": {
                "pruning": (Pruning(importance=Importance.TAYLOR, scope=Scope.LOCAL, ratio=0.5),),
                "finetune_steps": 3,
                "ways": (Way.PTQ,),
            },
        }
    )


@pytest.fixture(scope="module")
def result(recipe, tmp_path_factory):
    disaggregate_counts = disaggregate.COUNTS
    disaggregate.COUNTS = (64, 64, 96)
    try:
        source = Source(synthetic.generate(seed=1, devices=2, days=4), synthetic=False)
        return flow.run(recipe, source, Stages(tmp_path_factory.mktemp("stages")), lambda *_: None)
    finally:
        disaggregate.COUNTS = disaggregate_counts


def test_the_same_line_makes_prunes_rounds_and_judges_it(result):
    assert [built.name for built in result.variants] == [
        *("base-fp32", "base-int8"),
        *("taylor-local-50-fp32", "taylor-local-50-int8"),
    ]
    for built in result.variants:
        assert built.facts.parity < 1e-4
        assert built.facts.in_float == ()
        assert built.measured.scores.match_rate > 0
        outputs = {value.name: value.shape for value in opened(built.onnx).get_outputs()}
        classes = len(result.classes)
        assert outputs == {"probabilities": ["batch", classes], "watts_by_class": ["batch", classes]}


def test_training_aware_of_rounding_keeps_both_answers(recipe, tiny_split):
    task, network = Disaggregate(), networks.build(recipe.network, 256, 6, seed=1)
    lesson = qat.Lesson(2, 8, 1e-4)
    made = qat.to_int8(network, network, task.draws(tiny_split, recipe), lesson, seed=1, task=task)
    assert quantize.in_float(made.int8) == ()
    watts = np.full((3, 1, 256), 80, np.float32)
    for exact, rough in zip(
        *(opened(model).run(None, {"watts": watts}) for model in (made.twin, made.int8)), strict=True
    ):
        assert exact.shape == rough.shape == (3, 3)
        assert np.abs(exact - rough).max() < 0.1 * (1 + np.abs(exact).max())


def test_its_release_has_the_same_form_and_the_fields_figures(result):
    unsigned = handover.unsigned(result, created=datetime(2026, 11, 24, tzinfo=UTC))
    document = unsigned.numbered(version=1, sequence=1)
    assert {"release.json", "golden.u16"} <= set(document)
    first = unsigned.draft["variants"][0]
    assert first["reference"] is None, "no one probability stands for a window in which several appliances run"
    figures = first["accuracy"]["disaggregation"]
    assert set(figures) == {"maeWatts", "sae", "matchRate"}
    assert 0 <= figures["matchRate"] <= 1
    assert unsigned.draft["task"] == "disaggregate"
