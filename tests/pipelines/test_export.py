import copy

import numpy as np
import onnx
import pytest
import torch

from edgewright_pipelines import export, networks
from edgewright_pipelines.fold import fold
from edgewright_pipelines.recipe import Network, NetworkKind
from edgewright_pipelines.session import opened, probabilities


def _lived(kind):
    """A network whose batch norms have seen data, so that folding them is no trifle."""
    shape = Network(kind=kind, channels=(8, 16, 16), kernels=(1, 5, 3), hidden=16, bin_seconds=16)
    network = networks.build(shape, 256, 5, seed=2).train()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(5):
            network(torch.rand(16, 1, 256, generator=generator) ** 4 * 2000)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.weight.uniform_(0.3, 3.0, generator=generator)
                module.bias.uniform_(-1.0, 1.0, generator=generator)
    return network.eval()


@pytest.mark.parametrize("kind", list(NetworkKind))
@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.5])
def test_folding_changes_no_answer_but_by_the_temperature(kind, temperature):
    network = _lived(kind)
    watts = torch.rand(8, 1, 256) * 500
    folded = fold(network, temperature)
    assert torch.allclose(folded(watts) * temperature, network(watts), rtol=1e-3, atol=1e-3)
    assert not any(isinstance(m, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d) for m in folded.modules())


def test_a_channel_that_is_silent_but_for_outliers_is_not_blown_up():
    """Once its one outlier in a thousand windows decided the INT8 scale of the whole layer (macro-F1 0.91 to 0.02)."""
    network = _lived(NetworkKind.THERMOMETER_CNN)
    norm = network.stages[0][1]
    with torch.no_grad():
        norm.weight[0], norm.bias[0] = 0.1, -0.5  # its mean lies 5 deviations below 0
    weights = network.stages[0][0].weight[0] * 0.1 / torch.sqrt(norm.running_var[0] + norm.eps)
    grown = fold(network).stages[0][0].weight[0].abs().max() / weights.abs().max()
    assert grown <= 1 / (2 * 0.1) + 1e-3


def test_the_file_has_the_agreed_input_and_output_and_any_batch(tiny_onnx):
    session = opened(tiny_onnx)
    (watts,), (answers,) = session.get_inputs(), session.get_outputs()
    assert (watts.name, watts.type, watts.shape) == ("watts", "tensor(float)", ["batch", 1, 256])
    assert (answers.name, answers.type, answers.shape) == ("probabilities", "tensor(float)", ["batch", 3])
    for batch in (1, 5):
        (result,) = session.run(None, {"watts": np.full((batch, 1, 256), 80, np.float32)})
        assert result.sum(axis=1) == pytest.approx(np.ones(batch), abs=1e-5)


def test_the_file_says_nothing_about_this_machine(tiny_onnx):
    model = onnx.load_from_string(tiny_onnx)
    assert not model.metadata_props
    assert not model.producer_version
    assert not model.graph.value_info
    assert all(not node.doc_string and not node.metadata_props for node in model.graph.node)
    for trace in (b".py", b"site-packages", b"edgewright_pipelines", b"Traceback", b"File "):
        assert trace not in tiny_onnx
    assert model.opset_import[0].version == export.OPSET
    assert [opset.domain for opset in model.opset_import] == [""]


def test_the_same_network_gives_the_same_bytes(tiny_trained, tiny_onnx):
    assert export.to_onnx(tiny_trained.network, 256) == tiny_onnx


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_parity_holds_with_the_temperature_inside_and_the_network_is_left_alone(tiny_trained, tiny_test, temperature):
    before = {key: value.clone() for key, value in tiny_trained.network.state_dict().items()}
    model = export.to_onnx(tiny_trained.network, 256, temperature=temperature)
    assert all(torch.equal(before[key], value) for key, value in tiny_trained.network.state_dict().items())
    worst = export.parity(tiny_trained.network, model, tiny_test.watts[:50], temperature=temperature)
    assert worst < 1e-4
    assert export.parity(tiny_trained.network, model, tiny_test.watts[:50], temperature=1.0) > 1e-3, "a wrong one shows"


def test_parity_holds_without_a_temperature(tiny_trained, tiny_test, tiny_onnx):
    assert export.parity(tiny_trained.network, tiny_onnx, tiny_test.watts[:50]) < 1e-4


def test_a_file_of_another_network_shows_in_parity(tiny_trained, tiny_test, tiny_recipe):
    model = export.to_onnx(networks.build(tiny_recipe.network, 256, 3, seed=99), 256)
    assert export.parity(tiny_trained.network, model, tiny_test.watts[:50]) > 0.05


def test_a_network_that_answers_nan_is_as_far_off_as_can_be(tiny_trained, tiny_test, tiny_onnx):
    broken = copy.deepcopy(tiny_trained.network)
    with torch.no_grad():
        broken.output.bias[0] = float("nan")
    assert export.parity(broken, tiny_onnx, tiny_test.watts[:5]) == 1.0


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_cannot_divide_is_refused(tiny_trained, temperature):
    with pytest.raises(ValueError, match="must be above 0"):
        export.to_onnx(tiny_trained.network, 256, temperature=temperature)


def test_probabilities_of_no_windows_are_an_empty_table(tiny_onnx):
    assert probabilities(tiny_onnx, np.zeros((0, 256), np.uint16)).shape == (0, 3)
