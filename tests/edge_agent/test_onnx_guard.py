from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgewright_agent.onnx_guard import MAX_FIELDS, MAX_NODES, UnsafeModelError, check

WINDOW = 4


def _model(
    *nodes: onnx.NodeProto, initializers: list[onnx.TensorProto] | None = None, **changes: Any
) -> onnx.ModelProto:
    given_, answer = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, WINDOW]) for name in ("x", "y"))
    inputs = changes.pop("inputs", [given_])
    outputs = changes.pop("outputs", [answer])
    graph = helper.make_graph(list(nodes), "g", inputs, outputs, initializers or [])
    return helper.make_model(graph, **{"opset_imports": [helper.make_opsetid("", 20)], **changes})


def _relu() -> onnx.NodeProto:
    return helper.make_node("Relu", ["x"], ["y"])


def _bytes(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString())


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes as protobuf writes it."""
    length, size = len(content), b""
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def test_a_plain_graph_passes() -> None:
    weight = numpy_helper.from_array(np.ones(WINDOW, np.float32), "w")
    listed = helper.make_tensor("v", TensorProto.FLOAT, [2], [1.0, 2.0])
    check(_bytes(_model(helper.make_node("Mul", ["x", "w"], ["y"]), initializers=[weight, listed])), WINDOW)


def test_quantization_operators_pass_others_of_their_domain_do_not() -> None:
    check(_bytes(_model(helper.make_node("QGemm", ["x"], ["y"], domain="com.microsoft"))))
    with pytest.raises(UnsafeModelError, match="Attention"):
        check(_bytes(_model(helper.make_node("Attention", ["x"], ["y"], domain="com.microsoft"))))


@pytest.mark.parametrize(
    "operator", ["RandomNormal", "StringNormalizer", "SequenceEmpty", "Optional", "ImageDecoder", "Unknown", "../x"]
)
def test_an_operator_that_no_window_needs_is_refused(operator: str) -> None:
    with pytest.raises(UnsafeModelError, match="not among those"):
        check(_bytes(_model(helper.make_node(operator, ["x"], ["y"]))))


def test_a_foreign_domain_is_refused_at_the_node_and_at_the_model() -> None:
    with pytest.raises(UnsafeModelError, match="'evil'"):
        check(_bytes(_model(helper.make_node("Relu", ["x"], ["y"], domain="evil"))))
    with pytest.raises(UnsafeModelError, match=r"'ai.onnx.ml'"):
        check(_bytes(_model(_relu(), opset_imports=[helper.make_opsetid("ai.onnx.ml", 1)])))


@pytest.mark.parametrize("version", [0, -1, 999])
def test_an_unknown_opset_is_refused(version: int) -> None:
    with pytest.raises(UnsafeModelError, match="opset"):
        check(_bytes(_model(_relu(), opset_imports=[helper.make_opsetid("", version)])))


def test_control_flow_is_refused_by_name_by_attribute_and_however_deep() -> None:
    for operator in ("If", "Loop", "Scan", "SequenceMap"):
        with pytest.raises(UnsafeModelError, match="control flow"):
            check(_bytes(_model(helper.make_node(operator, ["x"], ["y"]))))
    inner = helper.make_graph([_relu()], "i", [], [])
    for _ in range(30):
        inner = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=inner)], "i", [], [])
    with pytest.raises(UnsafeModelError, match="graph of its own"):
        check(_bytes(_model(helper.make_node("Relu", ["x"], ["y"], body=inner))))


def test_functions_and_training_are_refused() -> None:
    function = helper.make_function("evil", "f", ["x"], ["y"], [_relu()], [helper.make_opsetid("", 20)])
    model = _model(_relu())
    model.functions.append(function)
    with pytest.raises(UnsafeModelError, match="functions"):
        check(_bytes(model))
    model = _model(_relu())
    model.training_info.add()
    with pytest.raises(UnsafeModelError, match="training"):
        check(_bytes(model))


@pytest.mark.parametrize("location", ["/etc/passwd", "../../secret", "weights.bin", ""])
@pytest.mark.parametrize("place", ["initializer", "attribute"])
def test_external_data_is_refused_wherever_it_points(place: str, location: str) -> None:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    tensor.data_location = TensorProto.EXTERNAL
    if location:
        tensor.external_data.add(key="location", value=location)
    if place == "initializer":
        model = _model(_relu(), initializers=[tensor])
    else:
        model = _model(helper.make_node("Constant", [], ["y"], value=tensor))
    with pytest.raises(UnsafeModelError, match="outside the file"):
        check(_bytes(model))


@pytest.mark.parametrize("sides", [[10**9], [10**9, 10**9], [2**62, 4], [-1], [3, -5, 10**6]])
def test_a_weight_larger_than_its_file_is_refused(sides: list[int]) -> None:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "w")
    del tensor.dims[:]
    tensor.dims.extend(sides)
    with pytest.raises(UnsafeModelError, match="does not hold"):
        check(_bytes(_model(_relu(), initializers=[tensor])))


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.INT4, TensorProto.UINT4])
@pytest.mark.parametrize("rank", [4, 9, 20, 40_000])
@pytest.mark.parametrize("packed", [True, False])
def test_a_weight_of_astronomic_shape_is_refused_before_it_is_reckoned_up(kind: int, rank: int, packed: bool) -> None:
    weight = onnx.TensorProto(name="w", data_type=kind, raw_data=b"")
    weight.dims.extend([2**62] * rank)
    data = weight.SerializeToString()
    if packed:  # proto2 writes them one by one
        weight.ClearField("dims")
        data = weight.SerializeToString() + _field(1, (b"\x80" * 8 + b"\x40") * rank)
    model = _model(_relu())
    graph = model.graph.SerializeToString() + _field(5, data)
    rest = onnx.ModelProto(opset_import=model.opset_import).SerializeToString()
    with pytest.raises(UnsafeModelError, match=r"dimensions|does not hold"):
        check(rest + _field(7, graph), WINDOW)


def test_a_file_of_junk_fields_is_refused_before_all_are_read() -> None:
    with pytest.raises(UnsafeModelError, match="fields"):
        check(b"\x08\x01" * (MAX_FIELDS + 1), WINDOW)  # ir_version, again and again


def test_sparse_and_string_weights_are_refused() -> None:
    values = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    model = _model(_relu())
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [10**9]))
    with pytest.raises(UnsafeModelError, match="sparse"):
        check(_bytes(model))
    with pytest.raises(UnsafeModelError, match="data type 8"):
        check(_bytes(_model(_relu(), initializers=[helper.make_tensor("s", TensorProto.STRING, [1], [b"x"])])))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("raw", [True, False])
def test_weights_that_are_no_numbers_are_refused(value: float, raw: bool) -> None:
    values = np.array([1.0, value, 2.0], np.float32)
    tensor = numpy_helper.from_array(values, "w") if raw else helper.make_tensor("w", TensorProto.FLOAT, [3], values)
    with pytest.raises(UnsafeModelError, match="NaN or infinite"):
        check(_bytes(_model(_relu(), initializers=[tensor])))


def test_large_finite_weights_pass() -> None:
    huge = np.full(10_000, np.finfo(np.float32).max, np.float32)
    check(_bytes(_model(_relu(), initializers=[numpy_helper.from_array(huge, "w")])))


@pytest.mark.parametrize(
    ("shape", "kind"),
    [([1, 1, 99], 1), ([WINDOW], 1), ([1, 1, 1, WINDOW], 1), ([1, WINDOW], 7), ([], 1), ([1, 10**12], 1)],
)
def test_an_input_that_no_window_fits_is_refused(shape: list[int], kind: int) -> None:
    wrong = helper.make_tensor_value_info("x", kind, shape)
    with pytest.raises(UnsafeModelError, match="input"):
        check(_bytes(_model(_relu(), inputs=[wrong])), WINDOW)


def test_no_or_many_inputs_and_no_output_are_refused() -> None:
    one, other = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, WINDOW]) for name in ("x", "z"))
    with pytest.raises(UnsafeModelError, match="2 inputs"):
        check(_bytes(_model(_relu(), inputs=[one, other])))
    with pytest.raises(UnsafeModelError, match="0 inputs"):
        check(_bytes(_model(_relu(), inputs=[])))
    with pytest.raises(UnsafeModelError, match="0 outputs"):
        check(_bytes(_model(_relu(), outputs=[])))
    with pytest.raises(UnsafeModelError, match="0 nodes"):
        check(_bytes(_model()))


def test_endless_graphs_are_refused() -> None:
    with pytest.raises(UnsafeModelError, match="more than"):
        check(_bytes(_model(*[_relu()] * (MAX_NODES + 1))))


@given(st.binary(max_size=200))
def test_noise_is_refused_with_a_sentence(noise: bytes) -> None:
    with pytest.raises(UnsafeModelError):
        check(noise)


WHOLE = _bytes(_model(_relu(), initializers=[numpy_helper.from_array(np.ones(WINDOW, np.float32), "w")]))


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_changed_file_is_read_or_refused_and_never_breaks_the_reader(changes: list[tuple[int, int]]) -> None:
    mutant = bytearray(WHOLE)
    for place, value in changes:
        mutant[place] = value
    with contextlib.suppress(UnsafeModelError):
        check(bytes(mutant), WINDOW)


@given(st.integers(0, len(WHOLE) - 1))
def test_a_truncated_file_never_breaks_the_reader(size: int) -> None:
    with contextlib.suppress(UnsafeModelError):
        check(WHOLE[:size], WINDOW)
