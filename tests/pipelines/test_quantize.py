import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgewright_pipelines import quantize
from edgewright_pipelines.session import opened, probabilities


@pytest.fixture(scope="module")
def pair(tiny_onnx, tiny_drawn):
    return tiny_onnx, quantize.to_int8(tiny_onnx, tiny_drawn.watts)


def test_weights_of_every_layer_are_int8(pair):
    model = onnx.load_from_string(pair[1])
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    source = {output: node for node in model.graph.node for output in node.output}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(layers) == 6  # thermometers, two convolutions, the summary, two linear layers
    for layer in layers:
        assert types[source[layer.input[1]].input[0]] == TensorProto.INT8


def test_the_file_is_smaller_and_answers_the_same_appliances(pair, tiny_test):
    model, int8 = pair
    assert len(int8) < 0.8 * len(model)
    exact, rough = (probabilities(file, tiny_test.watts) for file in pair)
    assert (exact.argmax(1) == rough.argmax(1)).mean() > 0.98
    assert not np.array_equal(exact, rough)


def test_input_output_and_open_batch_stay(pair):
    session = opened(pair[1])
    assert [(value.name, value.shape) for value in session.get_inputs()] == [("watts", ["batch", 1, 256])]
    assert [(value.name, value.shape) for value in session.get_outputs()] == [("probabilities", ["batch", 3])]
    assert opened(pair[1]).run(None, {"watts": np.zeros((3, 1, 256), np.float32)})[0].shape == (3, 3)


def test_watts_themselves_are_never_rounded(pair):
    """256 even levels of 0 to 3,600 W would put all small appliances on one level."""
    model = onnx.load_from_string(pair[1])
    logs = [node for node in model.graph.node if node.op_type == "Log"]
    assert len(logs) == 2  # of bins, of the whole window
    source = {output: node for node in model.graph.node for output in node.output}
    queue, seen = [name for node in logs for name in node.input], set()
    while queue:
        node = source.get(queue.pop())
        if node is not None:
            seen.add(node.op_type)
            queue.extend(node.input)
    assert "ReduceMax" in seen
    assert not seen & {"QuantizeLinear", "DequantizeLinear"}


def test_the_same_input_gives_the_same_bytes_without_traces_of_the_machine(pair, tiny_drawn):
    model, int8 = pair
    assert quantize.to_int8(model, tiny_drawn.watts) == int8
    assert not onnx.load_from_string(int8).metadata_props
    assert b"/tmp" not in int8
    assert b".onnx" not in int8


def test_reduced_range_keeps_weights_in_seven_bits(pair):
    model = onnx.load_from_string(pair[1])
    weights = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == TensorProto.INT8]
    large = [weight for weight in weights if weight.ndim > 1]
    assert large
    assert max(np.abs(weight.astype(int)).max() for weight in large) <= 64


def test_no_windows_is_an_error(pair):
    with pytest.raises(quantize.QuantizationError, match="none were given"):
        quantize.to_int8(pair[0], np.zeros((0, 256), np.uint16))


def test_nothing_to_quantize_is_an_error():
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["watts"], ["probabilities"])],
        "none",
        [helper.make_tensor_value_info("watts", TensorProto.FLOAT, ["batch", 1, 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 1, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(quantize.QuantizationError, match="nothing became INT8"):
        quantize.to_int8(model.SerializeToString(), np.ones((4, 4), np.uint16))


@pytest.mark.parametrize(
    ("architecture", "simd", "unsigned", "reduced"),
    [
        ("x86_64", "avx avx2", True, True),
        ("x86_64", "avx2 avx512_vnni", True, False),
        ("x86_64", "avx2 avx_vnni", True, False),
        ("aarch64", "asimd asimddp", False, False),
    ],
)
def test_the_scheme_goes_by_what_the_processor_saturates(architecture, simd, unsigned, reduced):
    scheme = quantize.scheme_for(architecture, simd)
    assert (scheme.activation.name == "QUInt8", scheme.reduce_range) == (unsigned, reduced)


def test_noise_of_a_layer_is_signal_over_error(pair, tiny_test):
    model, int8 = pair
    noise = quantize.noise(model, int8, tiny_test.watts[:32])
    assert list(noise) == ["Conv 0", "Conv 1", "Conv 2", "Conv 3", "Gemm 4", "Gemm 5"]
    assert all(15 < decibels < 90 for decibels in noise.values())
    assert set(quantize.noise(model, model, tiny_test.watts[:8]).values()) == {quantize.LOUDEST}


def test_layers_have_one_order_however_the_file_lists_them():
    """ONNX Runtime's quantizer sorts the nodes anew, so that a branch may stand elsewhere in the INT8 file."""
    weight = onnx.numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    first, second = (helper.make_node("Gemm", ["watts", "w"], [name]) for name in ("first", "second"))
    join = helper.make_node("Concat", ["first", "second"], ["probabilities"], axis=1)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("watts", "probabilities")]
    graphs = [
        helper.make_graph([*listed, join], "g", ends[:1], ends[1:], [weight])
        for listed in ([first, second], [second, first])
    ]
    assert [[layer.output[0] for layer in quantize.layers(graph)] for graph in graphs] == [["first", "second"]] * 2


def test_noise_shows_the_layer_that_was_spoiled(pair, tiny_test):
    graph = onnx.load_from_string(pair[1])
    layer = quantize.layers(graph.graph)[2]
    source = {output: node for node in graph.graph.node for output in node.output}
    name = source[layer.input[1]].input[0]
    weight = next(tensor for tensor in graph.graph.initializer if tensor.name == name)
    weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), name))
    noise = quantize.noise(pair[0], graph.SerializeToString(), tiny_test.watts[:32])
    assert min(noise["Conv 0"], noise["Conv 1"]) > 15
    assert noise["Conv 2"] < 3


def test_a_layer_that_was_left_in_float_is_named(pair, tiny_drawn):
    model, int8 = pair
    assert quantize.in_float(int8) == ()
    convolutions = ("Conv 0", "Conv 1", "Conv 2", "Conv 3")
    assert quantize.in_float(model) == (*convolutions, "Gemm 4", "Gemm 5")
    scheme = quantize.Scheme(operators=("Gemm",))
    assert quantize.in_float(quantize.to_int8(model, tiny_drawn.watts, scheme)) == convolutions
