import copy

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import QuantType

from edgewright_pipelines import export, qat, quantize, sampling
from edgewright_pipelines.session import opened, probabilities
from edgewright_pipelines.train import TrainingError


@pytest.fixture(scope="module")
def draws(tiny_split, tiny_recipe):
    return sampling.sampler(tiny_split.train, tiny_split.classes, 256, tiny_recipe.training.augmentation)


def _made(trained, draws, *, steps=6, rate=1e-4, **settings):
    lesson = qat.Lesson(steps, 8, rate)
    return qat.to_int8(trained.network, trained.network, draws, lesson, seed=1, **settings)


@pytest.fixture(scope="module")
def aware(tiny_trained, draws):
    return _made(tiny_trained, draws)


def _weights(model):
    graph = onnx.load_from_string(model).graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    source = {output: node for node in graph.node for output in node.output}
    return [tensors[source[node.input[1]].input[0]] for node in quantize.layers(graph)]


def test_every_layer_is_rounded_by_channel_and_the_batch_stays_open(aware):
    assert quantize.in_float(aware.int8) == ()
    weights = _weights(aware.int8)
    assert len(weights) == 6
    assert {weight.dtype for weight in weights} == {np.dtype(np.int8)}
    session = opened(aware.int8)
    assert [(value.name, value.shape) for value in session.get_inputs()] == [("watts", ["batch", 1, 256])]
    assert session.run(None, {"watts": np.full((5, 1, 256), 80, np.float32)})[0].shape == (5, 3)


def test_it_answers_as_the_network_that_it_came_from(aware, tiny_onnx, tiny_test):
    exact = probabilities(tiny_onnx, tiny_test.watts)
    rough = probabilities(aware.int8, tiny_test.watts)
    assert (exact.argmax(1) == rough.argmax(1)).mean() > 0.98
    assert not np.array_equal(exact, rough)


def test_the_twin_shows_what_rounding_alone_does(aware, tiny_test):
    noise = quantize.noise(aware.twin, aware.int8, tiny_test.watts[:32])
    assert list(noise) == ["Conv 0", "Conv 1", "Conv 2", "Conv 3", "Gemm 4", "Gemm 5"]
    assert all(15 < decibels < 90 for decibels in noise.values())


def test_training_moves_the_weights_towards_the_teacher(tiny_trained, tiny_onnx, draws, tiny_test):
    """A spoiled network comes back to the answers of the one that it was copied from; without steps it would not."""
    spoiled = copy.deepcopy(tiny_trained.network)
    with torch.no_grad():
        spoiled.output.bias += torch.tensor([0.0, 6.0, 0.0])
    lesson = qat.Lesson(60, 16, 2e-2)
    wanted = probabilities(tiny_onnx, tiny_test.watts)
    before = probabilities(export.to_onnx(spoiled, 256), tiny_test.watts)
    made = qat.to_int8(spoiled, tiny_trained.network, draws, lesson, seed=1)
    after = probabilities(made.int8, tiny_test.watts)
    assert np.abs(after - wanted).mean() < 0.3 * np.abs(before - wanted).mean()


def test_signed_and_unsigned_and_seven_bits_are_what_the_scheme_says(tiny_trained, draws, aware):
    scheme = quantize.Scheme(activation=QuantType.QInt8, reduce_range=False)
    signed, unsigned = _made(tiny_trained, draws, steps=2, scheme=scheme).int8, aware.int8
    for model, kind in ((signed, onnx.TensorProto.INT8), (unsigned, onnx.TensorProto.UINT8)):
        graph = onnx.load_from_string(model).graph
        types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        assert {types[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"} == {kind}
    assert max(np.abs(weight.astype(int)).max() for weight in _weights(signed)) > 120
    assert max(np.abs(weight.astype(int)).max() for weight in _weights(unsigned)) <= 64


def test_layers_that_bear_four_bits_get_them_and_the_others_keep_theirs(tiny_trained, draws):
    made = _made(tiny_trained, draws, steps=2, scheme=quantize.Scheme(weight_bits=4)).int8
    largest = {weight.shape: int(np.abs(weight.astype(int)).max()) for weight in _weights(made)}
    ramps = tiny_trained.network.rhythm.channels
    assert largest.pop((16, ramps, 1, 1)) == 7
    assert set(largest.values()) == {64}


def test_watts_before_the_logarithm_stay_in_float(aware):
    graph = onnx.load_from_string(aware.int8).graph
    source = {output: node for node in graph.node for output in node.output}
    queue = [name for node in graph.node if node.op_type == "Log" for name in node.input]
    seen = set()
    while queue:
        node = source.get(queue.pop())
        if node is not None:
            seen.add(node.op_type)
            queue.extend(node.input)
    assert "ReduceMax" in seen
    assert not seen & {"QuantizeLinear", "DequantizeLinear"}


def test_the_same_seed_gives_the_same_bytes_and_the_network_is_left_alone(tiny_trained, draws, aware):
    before = copy.deepcopy(tiny_trained.network.state_dict())
    assert _made(tiny_trained, draws) == aware
    assert all(torch.equal(before[key], value) for key, value in tiny_trained.network.state_dict().items())


def test_a_loss_that_is_no_number_is_said(tiny_trained, draws):
    broken = copy.deepcopy(tiny_trained.network)
    with torch.no_grad():
        broken.output.bias[0] = float("inf")
    with pytest.raises(TrainingError, match=r"at step 1; use a smaller qat_learning_rate"):
        qat.to_int8(tiny_trained.network, broken, draws, qat.Lesson(2, 8, 1e-4), seed=1)
