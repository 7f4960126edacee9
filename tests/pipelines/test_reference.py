"""What a release says of its own answers to validation windows: threshold, unknown share, histograms."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright_pipelines import reference
from edgewright_pipelines.windows import WindowSet

WINDOW = 16


def _model() -> bytes:
    """Probability of the second class: sigmoid(mean watts - 100), so it is sure far from 100 W and unsure near it."""
    weight = np.zeros((WINDOW, 2), np.float32)
    weight[:, 1] = 1 / WINDOW
    tensors = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array([0, -100], np.float32), "b")]
    nodes = [
        helper.make_node("Flatten", ["watts"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    watts = helper.make_tensor_value_info("watts", TensorProto.FLOAT, ["batch", 1, WINDOW])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "g", [watts], [answer], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def _windows(levels: list[int], wrong: bool = False) -> WindowSet:
    watts = np.repeat(np.array(levels, np.uint16)[:, None], WINDOW, axis=1)
    label = np.array([(level > 100) != wrong for level in levels], np.int16)
    return WindowSet(watts, label, np.zeros(len(levels), np.int32), ("one",), ("low", "high"))


def test_the_threshold_lets_the_right_answers_pass() -> None:
    levels = np.random.default_rng(1).integers(95, 106, 800).tolist()
    validation = _windows(levels)
    found = reference.measure(_model(), validation, 0.001)
    assert found is not None
    distance = np.abs(np.array(levels) - 100)
    confidence = 1 / (1 + np.exp(-distance.astype(float)))
    right = confidence[(np.array(levels) > 100) == (np.array(levels) >= 101)]
    assert np.mean(right < found.threshold) <= 0.05
    assert found.unknown_ratio == pytest.approx(np.mean(confidence < found.threshold - 1e-6), abs=1e-9)
    assert found.windows == 800


def test_it_is_measured_on_an_even_sample_of_a_large_set() -> None:
    levels = [50] * 1_500 + [300] * 1_500
    found = reference.measure(_model(), _windows(levels), 0.001)
    assert found is not None
    assert found.windows == reference.WINDOWS
    assert sum(found.mean_watts.counts) == reference.WINDOWS
    assert max(found.mean_watts.counts) == reference.WINDOWS // 2


def test_a_file_that_is_never_right_has_no_threshold() -> None:
    assert reference.measure(_model(), _windows([50, 300], wrong=True), 0.001) is None


def test_the_bins_hold_equally_many() -> None:
    found = reference.histogram(np.random.default_rng(1).uniform(0, 1000, 5_000), apart=1.0)
    assert len(found.edges) == reference.BINS - 1
    assert min(found.counts) >= 0.99 * 5_000 / reference.BINS


def test_no_edge_lies_where_the_arithmetic_of_another_cpu_may_move_values_over_it() -> None:
    values = np.concatenate([np.full(500, 0.4), np.full(500, 0.4005), np.full(4_000, 0.99999)])
    found = reference.histogram(values, apart=0.001, most=1.0)
    assert len(found.edges) <= 1
    assert all(edge + 0.001 <= 1.0 for edge in found.edges)
    assert sum(found.counts) == 5_000


def test_a_value_on_an_edge_belongs_to_the_bin_above() -> None:
    found = reference.histogram(np.array([1.0, 2.0, 3.0, 4.0, 5.0] * 20), apart=0.5)
    below = [sum(1 for value in [1.0, 2.0, 3.0, 4.0, 5.0] * 20 if value < edge) for edge in found.edges]
    assert np.cumsum(found.counts)[:-1].tolist() == below
