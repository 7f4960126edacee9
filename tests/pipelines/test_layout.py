import functools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgewright_pipelines import export, layout, networks, quantize
from edgewright_pipelines.recipe import Network, NetworkKind
from edgewright_pipelines.session import probabilities


@pytest.fixture(scope="module")
def watts():
    return np.random.default_rng(0).gamma(0.5, 300, (24, 256)).astype(np.uint16)


@functools.cache
def _file(kind=NetworkKind.THERMOMETER_CNN):
    shape = Network(kind=kind, channels=(8, 16, 16), kernels=(1, 5, 3), hidden=16, bin_seconds=16)
    return export.to_onnx(networks.build(shape, 256, 5, seed=2), 256)


def _ranks(model):
    graph = onnx.load_from_string(model).graph
    sizes = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    source = {output: node.input[0] for node in graph.node for output in node.output if "Dequantize" in node.op_type}
    return [sizes[source.get(node.input[1], node.input[1])] for node in graph.node if node.op_type == "Conv"]


@pytest.mark.parametrize("kind", list(NetworkKind))
@pytest.mark.parametrize("rounded", [False, True])
def test_one_axis_answers_as_two_do(kind, rounded, watts):
    model = _file(kind)
    if rounded:
        model = quantize.to_int8(model, watts)
    other = layout.one_axis(model)
    assert set(_ranks(model)) == {4}
    assert set(_ranks(other)) == {3}
    assert layout.check_alike(model, other, watts) <= 1e-6


@pytest.mark.parametrize(("one", "wins"), [(75.0, True), (90.0, False), (150.0, False)])
def test_the_faster_form_is_kept_and_a_tie_changes_nothing(one, wins, watts):
    model = _file()
    kept = layout.faster(model, watts, lambda files: {"two": 100.0, "one": one})
    assert kept == (layout.one_axis(model) if wins else model)


def test_a_gain_of_a_few_microseconds_is_noise_whatever_its_part(watts):
    model = _file()
    assert layout.faster(model, watts, lambda files: {"two": 8.0, "one": 4.0}) == model


def test_the_one_axis_form_holds_nothing_that_it_does_not_use(watts):
    graph = onnx.load_from_string(layout.one_axis(_file())).graph
    used = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= used


def test_an_operator_in_between_that_is_not_known_keeps_the_file(watts):
    model = onnx.load_from_string(_file())
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    model.graph.node.append(helper.make_node("Erf", [node.output[0]], ["strange"]))
    assert layout.one_axis(model.SerializeToString()) is None


def test_a_file_without_the_axis_is_kept():
    watts, answers = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1, 4]) for name in ("watts", "probabilities")
    )
    graph = helper.make_graph([helper.make_node("Softmax", ["watts"], ["probabilities"])], "none", [watts], [answers])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    assert layout.one_axis(model.SerializeToString()) is None


def test_a_rewriting_that_changed_an_answer_is_refused(watts, monkeypatch):
    model = _file()
    other = onnx.load_from_string(layout.one_axis(model))
    last = next(tensor for tensor in reversed(other.graph.initializer) if list(tensor.dims) == [5])
    last.CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(last) + np.float32([1, 0, 0, 0, 0]), last.name)
    )
    monkeypatch.setattr(layout, "one_axis", lambda _: other.SerializeToString())
    with pytest.raises(layout.LayoutError, match=r"differs by up to \d\.\d+e-0\d, more than 1e-05"):
        layout.faster(model, watts)
    assert np.isfinite(probabilities(model, watts)).all()
