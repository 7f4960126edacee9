import numpy as np
import onnx
import pytest
import torch

from edgewright_pipelines import calibrate, export, quantize
from edgewright_pipelines.scores import score
from edgewright_pipelines.session import probabilities


def test_the_temperature_that_made_the_labels_is_found():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 5, generator=generator)
    labels = torch.multinomial(torch.softmax(logits / 2.5, dim=1), 1, generator=generator)[:, 0]
    assert calibrate.fit(logits, labels) == pytest.approx(2.5, rel=0.1)


@pytest.fixture(scope="module")
def overconfident(tiny_trained, tiny_drawn):
    """An INT8 file whose logits are eight times too large."""
    model = export.to_onnx(tiny_trained.network, 256, temperature=0.125)
    return quantize.to_int8(model, tiny_drawn.watts)


def test_an_int8_file_gets_its_own_temperature_and_no_operator(overconfident, tiny_test):
    noisy = tiny_test.label.copy()
    noisy[::5] = (noisy[::5] + 1) % 3  # a fifth of the labels is wrong, so certainty is punished
    tested = type(tiny_test)(tiny_test.watts, noisy, tiny_test.day, tiny_test.days, tiny_test.classes)
    sharp = calibrate.sharpened(overconfident, tested)
    before, after = (probabilities(model, tested.watts) for model in (overconfident, sharp))
    assert score(after, tested).bce < 0.8 * score(before, tested).bce
    assert np.array_equal(before.argmax(1), after.argmax(1))
    kinds = [[node.op_type for node in onnx.load_from_string(m).graph.node] for m in (overconfident, sharp)]
    assert sorted(kinds[0]) == sorted(kinds[1])


def test_no_windows_is_an_error(overconfident, tiny_trained, tiny_test):
    nothing = tiny_test.select(np.zeros(len(tiny_test), bool))
    with pytest.raises(ValueError, match="no windows to calibrate on"):
        calibrate.sharpened(overconfident, nothing)
    with pytest.raises(ValueError, match="no windows to calibrate on"):
        calibrate.temperature(tiny_trained.network, nothing)


def test_a_file_that_was_not_rounded_cannot_be_sharpened(tiny_onnx, tiny_test):
    with pytest.raises(ValueError, match="does not read a rounded value"):
        calibrate.sharpened(tiny_onnx, tiny_test)
