import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, log_loss

from edgewright_pipelines import calibrate, evaluate, quantize
from edgewright_pipelines.graph_costs import costs
from edgewright_pipelines.latency import Effort, Latency
from edgewright_pipelines.scores import f1, score
from edgewright_pipelines.windows import WindowSet

QUICK = Effort(warmup=1, rounds=2, runs=2)


def _set(labels, days=None, watts=None, classes=("a", "b", "c")):
    labels = np.asarray(labels, np.int16)
    days = np.arange(len(labels), dtype=np.int32) if days is None else np.asarray(days, np.int32)
    watts = np.full((len(labels), 3600), 1000, np.uint16) if watts is None else np.asarray(watts, np.uint16)
    return WindowSet(watts, labels, days, tuple(f"day {n}" for n in range(int(days.max()) + 1)), classes)


def _sure(answers, classes=3, of=0.8):
    rows = np.full((len(answers), classes), (1 - of) / (classes - 1))
    rows[np.arange(len(answers)), answers] = of
    return rows


def test_macro_f1_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    truth, answers = rng.integers(0, 5, 300), rng.integers(0, 6, 300)
    assert np.mean(list(f1(truth, answers).values())) == pytest.approx(f1_score(truth, answers, average="macro"))


def test_by_day_goes_by_the_sum_of_log_probabilities():
    """Two weak wrong windows against one that is very sure: the majority is wrong, the day is right."""
    windows = _set([0, 0, 0, 1], days=[0, 0, 0, 1])
    rows = np.array([[0.4, 0.6, 0.0], [0.4, 0.6, 0.0], [0.99, 0.01, 0.0], [0.1, 0.9, 0.0]])
    scores = score(rows, windows)
    assert scores.accuracy == 0.5
    assert scores.accuracy_by_day == 1.0
    assert scores.macro_f1_by_day == 1.0
    assert (scores.windows, scores.days) == (4, 2)


def test_bce_is_the_sum_over_classes_with_probabilities_clipped():
    rows = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]])
    scores = score(rows, _set([0, 1]))
    first = -math.log(0.5) - math.log(0.7) - math.log(0.8)
    second = -2 * math.log(1e-7)  # sure and wrong: once for each of the two classes
    assert scores.bce == pytest.approx((first + second) / 2, rel=1e-4)


def test_energy_goes_to_the_answered_class():
    scores = score(_sure([0, 0, 1]), _set([0, 1, 1]))  # one kilowatt for an hour each
    assert scores.energy_kwh == pytest.approx({"a": 1.0, "b": 2.0, "c": 0.0})
    assert scores.energy_error_kwh == pytest.approx({"a": 1.0, "b": -1.0, "c": 0.0})


def test_overlapping_windows_count_their_hop_only():
    scores = score(_sure([0, 0, 1]), _set([0, 1, 1]), hop_seconds=900)
    assert scores.energy_kwh == pytest.approx({"a": 0.25, "b": 0.5, "c": 0.0})


def test_f1_of_each_class_has_its_name():
    scores = score(_sure([0, 1, 1]), _set([0, 0, 1]))
    assert scores.f1_by_class == pytest.approx({"a": 2 / 3, "b": 2 / 3})
    assert scores.macro_f1 == pytest.approx(2 / 3)


def test_a_class_that_is_answered_but_does_not_occur_is_an_error_and_no_class_of_the_mean():
    scores = score(_sure([0, 2, 1]), _set([0, 0, 1]))
    assert scores.f1_by_class == pytest.approx({"a": 2 / 3, "b": 1.0, "c": 0.0})
    assert scores.macro_f1 == pytest.approx((2 / 3 + 1) / 2)


def test_an_empty_set_and_a_wrong_shape_are_refused_with_a_sentence():
    with pytest.raises(ValueError, match="There are no windows to score"):
        score(np.zeros((0, 3)), _set([0]).select(np.zeros(1, bool)))
    with pytest.raises(ValueError, match=r"shape \(1, 2\); 1 windows of 3 classes need \(1, 3\)"):
        score(np.zeros((1, 2)), _set([0]))


def test_costs_are_those_of_the_layers(tiny_trained, tiny_onnx, tiny_drawn):
    """16 steps in the first stage, 8 in the second and 1 in the summary; thermometers 5 -> 72."""
    once = tiny_trained.network.rhythm.channels * 16 + (48 + 16) * 16 + 16 * 3
    found = costs(tiny_onnx)
    assert found.parameters == 5 * 72 + 72 * 16 + 16 * 24 * 3 + once + 72 + 16 + 24 + 16 + 16 + 3
    assert found.macs == 16 * (5 * 72 + 72 * 16) + 8 * 16 * 24 * 3 + once
    assert costs(quantize.to_int8(tiny_onnx, tiny_drawn.watts)) == found


def test_measures_the_file_itself(tiny_onnx, tiny_test):
    found = evaluate.measure(tiny_onnx, tiny_test, effort=QUICK)
    assert found.bytes == len(tiny_onnx)
    assert found.scores.macro_f1 > 0.95
    assert found.latency.runs == 4
    assert found.macs == costs(tiny_onnx).macs


def test_a_given_latency_is_taken_over(tiny_onnx, tiny_test):
    timed = Latency(1.0, 2.0, 3)
    assert evaluate.measure(tiny_onnx, tiny_test, timed=timed).latency is timed


def test_the_example_is_the_window_with_most_energy():
    watts = np.stack([np.full(3600, level) for level in (5, 900, 40)])
    assert evaluate.example(_set([0, 1, 2], watts=watts))[0] == 900


@pytest.mark.parametrize("factor", [0.5, 2.0, 4.0])
def test_temperature_undoes_logits_that_are_too_sure_or_too_shy(factor):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 5, generator=generator) * 2
    labels = torch.multinomial(torch.softmax(logits, 1), 1, generator=generator)[:, 0]
    assert calibrate.fit(logits * factor, labels) == pytest.approx(factor, rel=0.1)


def test_temperature_lowers_the_loss_of_a_network(tiny_trained, tiny_test):
    found = calibrate.temperature(tiny_trained.network, tiny_test)
    logits = calibrate.logits(tiny_trained.network, tiny_test).numpy()

    def loss(divisor):
        rows = np.exp(logits / divisor)
        return log_loss(tiny_test.label, rows / rows.sum(1, keepdims=True))

    assert loss(found) <= min(loss(1.0), loss(found * 1.2), loss(found / 1.2)) + 1e-6


def test_no_windows_to_calibrate_on_is_an_error(tiny_trained, tiny_test):
    with pytest.raises(ValueError, match="no windows to calibrate on"):
        calibrate.temperature(tiny_trained.network, tiny_test.select(np.zeros(len(tiny_test), bool)))
