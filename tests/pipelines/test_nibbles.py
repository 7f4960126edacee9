"""Weights of 4 bits: the file is smaller, says the same, and what was not trained for it stays as it was."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright_agent import onnx_guard
from edgewright_pipelines import nibbles, quantize
from edgewright_pipelines.graph_costs import costs
from edgewright_pipelines.session import opened, probabilities


def _rounded(model, levels):
    """An INT8 file whose weights have at most so many levels on either side of 0."""
    graph = onnx.load_from_string(model)
    for tensor in graph.graph.initializer:
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) > 1:
            values = np.round(numpy_helper.to_array(tensor) / 127 * levels).astype(np.int8)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return graph.SerializeToString()


@pytest.fixture(scope="module")
def int8(tiny_onnx, tiny_drawn):
    return quantize.to_int8(tiny_onnx, tiny_drawn.watts[:64])


def test_the_file_is_smaller_and_answers_bit_for_bit_alike(int8, tiny_test):
    wide = _rounded(int8, 7)
    narrow = nibbles.packed(wide)
    weights = sum(
        int(np.prod(tensor.dims))
        for tensor in onnx.load_from_string(narrow).graph.initializer
        if tensor.data_type == TensorProto.INT4
    )
    assert weights > 10_000
    assert len(wide) - len(narrow) > 0.45 * weights
    assert np.array_equal(probabilities(narrow, tiny_test.watts), probabilities(wide, tiny_test.watts))


def test_its_layers_count_as_rounded_and_cost_what_they_did(int8):
    wide = _rounded(int8, 7)
    narrow = nibbles.packed(wide)
    assert quantize.in_float(narrow) == ()
    assert costs(narrow) == costs(wide)


def test_a_node_serves_it(int8):
    onnx_guard.check(nibbles.packed(_rounded(int8, 7)), 256)


def test_weights_that_need_more_than_four_bits_stay(int8):
    wide = _rounded(int8, 18)  # of 127; the scheme's seven bits leave half of it
    assert nibbles.packed(int8) == int8
    assert nibbles.packed(wide) == wide


@pytest.mark.parametrize("count", [256, 257])
def test_every_value_comes_back_also_the_odd_one(count):
    values = (np.arange(count) % 16 - 8).astype(np.int8)
    parts = [
        helper.make_node("DequantizeLinear", ["w", "scale"], ["held"]),
        helper.make_node("Add", ["watts", "held"], ["probabilities"]),
    ]
    shape = helper.make_tensor_value_info
    graph = helper.make_graph(
        parts,
        "g",
        [shape("watts", TensorProto.FLOAT, ["batch", count])],
        [shape("probabilities", TensorProto.FLOAT, ["batch", count])],
        [numpy_helper.from_array(values, "w"), numpy_helper.from_array(np.float32(0.5), "scale")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    narrow = nibbles.packed(model.SerializeToString())
    found = opened(narrow).run(None, {"watts": np.zeros((1, count), np.float32)})[0]
    assert np.array_equal(found[0], values * 0.5)
