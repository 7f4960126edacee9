from __future__ import annotations

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgewright_agent.onnx_guard import UnsafeModelError, check


def _model(*nodes: onnx.NodeProto, initializers: list[onnx.TensorProto] | None = None) -> onnx.ModelProto:
    given_, answer = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y"))
    return helper.make_model(helper.make_graph(list(nodes), "g", [given_], [answer], initializers or []))


def test_a_plain_graph_passes() -> None:
    check(_model(helper.make_node("Relu", ["x"], ["y"])).SerializeToString())


def test_quantization_operators_pass_others_of_their_domain_do_not() -> None:
    check(_model(helper.make_node("QGemm", ["x"], ["y"], domain="com.microsoft")).SerializeToString())
    with pytest.raises(UnsafeModelError, match="Attention"):
        check(_model(helper.make_node("Attention", ["x"], ["y"], domain="com.microsoft")).SerializeToString())


def test_a_foreign_domain_is_refused() -> None:
    with pytest.raises(UnsafeModelError, match="'evil'"):
        check(_model(helper.make_node("Relu", ["x"], ["y"], domain="evil")).SerializeToString())


def test_control_flow_is_refused_by_name_and_by_attribute() -> None:
    with pytest.raises(UnsafeModelError, match="control flow"):
        check(_model(helper.make_node("Loop", ["x"], ["y"])).SerializeToString())
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "i", [], [])
    with pytest.raises(UnsafeModelError, match="graph of its own"):
        check(_model(helper.make_node("Relu", ["x"], ["y"], body=inner)).SerializeToString())


@pytest.mark.parametrize("place", ["initializer", "attribute"])
def test_external_data_is_refused(place: str) -> None:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    if place == "initializer":
        model = _model(helper.make_node("Relu", ["x"], ["y"]), initializers=[tensor])
    else:
        model = _model(helper.make_node("Constant", [], ["y"], value=tensor))
    with pytest.raises(UnsafeModelError, match="outside the file"):
        check(model.SerializeToString())


@given(st.binary(max_size=200))
def test_noise_is_refused_with_a_sentence(noise: bytes) -> None:
    with pytest.raises(UnsafeModelError):
        check(noise)
