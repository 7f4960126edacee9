import numpy as np
import onnx
import pytest

from edgewright_pipelines import export, networks
from edgewright_pipelines.recipe import Network, NetworkKind
from edgewright_pipelines.session import probabilities
from edgewright_pipelines.study import baseline, dynamic
from edgewright_pipelines.study.eager import eager_p50
from edgewright_pipelines.windows import WindowSet


def _set(rng, count=60):
    """Two appliances of one mean: one changes each second, the other each minute."""
    label = (np.arange(count) % 2).astype(np.int16)
    second = np.arange(1024)[None, :] + rng.integers(120, size=(count, 1))
    period = np.where(label == 0, 1, 60)[:, None]
    watts = (second // period % 2 + 1).astype(np.uint16)
    return WindowSet(watts, label, np.arange(count, dtype=np.int32), tuple(map(str, range(count))), ("a", "b", "c"))


def test_features_are_finite_numbers_also_of_silence_and_of_short_windows():
    silent = np.zeros((2, 1024), np.uint16)
    assert np.isfinite(baseline.features(silent)).all()
    assert np.isfinite(baseline.features(np.full((1, 64), 3000, np.uint16))).all()


def test_the_forest_tells_rhythms_apart_and_answers_every_class():
    rng = np.random.default_rng(3)
    forest = baseline.fit(_set(rng), trees=20, seed=1)
    held = _set(rng, 20)
    answers = forest.probabilities(held.watts)
    assert answers.shape == (20, 3)
    assert np.allclose(answers.sum(axis=1), 1.0)
    assert (answers.argmax(axis=1) == held.label).all()
    assert not answers[:, 2].any()  # a class that it never saw
    again = baseline.fit(_set(np.random.default_rng(3)), trees=20, seed=1)
    assert np.array_equal(again.probabilities(held.watts), answers)


@pytest.fixture(scope="module")
def network():
    shape = Network(kind=NetworkKind.STUDY_CNN, channels=(8, 16), kernels=(3, 3), pool=4, hidden=32)
    return networks.build(shape, 256, 4, seed=2).eval()


def test_dynamic_int8_answers_nearly_the_same_without_any_windows(network):
    model = export.to_onnx(network, 256)
    rounded = dynamic.to_int8(model)
    watts = np.random.default_rng(1).integers(0, 2000, (16, 256)).astype(np.uint16)
    assert np.abs(probabilities(rounded, watts) - probabilities(model, watts)).max() < 0.1
    kinds = {node.op_type for node in onnx.load_from_string(rounded).graph.node}
    assert kinds & {"ConvInteger", "MatMulInteger"}


def test_eager_time_is_the_median_of_what_the_clock_says(network):
    ticks = iter(range(0, 10_000_000, 7_000))
    example = np.zeros(256, np.uint16)
    assert eager_p50(network, example, runs=5, clock=lambda: next(ticks)) == pytest.approx(7.0)
