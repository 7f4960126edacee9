import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright_agent import onnx_guard
from edgewright_contract.digests import digest_of
from edgewright_local import bad_release


def _graph() -> bytes:
    watts = helper.make_tensor_value_info("watts", TensorProto.FLOAT, ["batch", 64])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])
    weights = np.random.default_rng(1).normal(size=(64, 2)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["watts", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(nodes, "tiny", [watts], [answer], [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.fixture
def files(small_release):
    graph = {f"variants/{name}.onnx": _graph() for name in ("base-fp32", "base-int8")}
    return small_release(files=graph).numbered(version=2, sequence=5)


def _answers(onnx_file: bytes, watts):
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    return session.run(None, {"watts": watts})[0]


def test_answers_are_the_good_ones_shifted_by_one_class(files):
    watts = np.random.default_rng(2).normal(size=(5, 64)).astype(np.float32)
    bad = bad_release.shifted(files)
    for path in ("variants/base-fp32.onnx", "variants/base-int8.onnx"):
        onnx.checker.check_model(onnx.load_model_from_string(bad.files[path]))
        good = _answers(files[path], watts)
        np.testing.assert_array_equal(_answers(bad.files[path], watts), np.roll(good, 1, axis=1))


def test_everything_that_an_agent_checks_before_serving_is_in_order(files):
    bad = bad_release.shifted(files)
    bad.numbered(version=3, sequence=6)  # a valid release.json
    for variant in bad.draft["variants"]:
        data = bad.files[variant["file"]]
        assert variant["digest"] == digest_of(data)
        assert variant["bytes"] == len(data)
        assert variant["golden"]["answers"] == [[0.5, 0.5], [0.75, 0.25]]
        onnx_guard.check(data)
