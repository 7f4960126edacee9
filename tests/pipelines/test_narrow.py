"""Which layers bear weights of 4 bits: asked on windows, and ready for it afterwards or untouched."""

import copy

import pytest
import torch

from edgewright_pipelines.fold import fold
from edgewright_pipelines.narrow import clipped, narrow


@pytest.fixture
def folded(tiny_trained):
    return fold(tiny_trained.network)


@pytest.fixture(scope="module")
def watts(tiny_drawn):
    return torch.from_numpy(tiny_drawn.watts[:96].astype("float32"))[:, None, :]


def test_the_layer_behind_the_ramps_bears_them_and_the_answers_hardly_move(folded, watts):
    before = copy.deepcopy(folded)
    assert narrow(folded, watts) == {"stages.2.0"}
    changed = [name for name, value in folded.state_dict().items() if not torch.equal(value, before.state_dict()[name])]
    assert set(changed) <= {"stages.2.0.weight", "stages.2.0.bias"}
    with torch.no_grad():
        assert (folded(watts).argmax(1) == before(watts).argmax(1)).float().mean() > 0.95


def test_a_layer_whose_errors_are_loud_is_left_as_it_was(folded, watts):
    """A large weight on a ramp that never moves says nothing, and makes the step too coarse for all that do."""
    bins = folded._bins(watts)
    still = int(folded.rhythm(bins, folded.front.logarithms(bins)).squeeze().std(0).argmin())
    with torch.no_grad():
        layer = folded.stages[2][0]
        layer.weight *= 1e-3
        layer.weight[:, still] = 5.0
    before = copy.deepcopy(folded.state_dict())
    assert narrow(folded, watts) == frozenset()
    assert all(torch.equal(value, before[name]) for name, value in folded.state_dict().items())


def test_outliers_are_cut_where_rounding_then_errs_least():
    """One weight of 10 among many of 1: with steps of 10 / 7 all others would round to 1.4; a channel without stays."""
    weight = torch.cat((torch.full((1, 400), 1.0), torch.linspace(-1, 1, 400).reshape(1, 400)))
    weight[0, 0] = 10.0
    cut = clipped(weight)
    steps = cut.abs().amax(1, keepdim=True) / 7
    before = weight.abs().amax(1, keepdim=True) / 7
    errors = [(((weight / step).round().clamp(-7, 7) * step) - weight).square().sum(1) for step in (before, steps)]
    assert errors[1][0] < 0.8 * errors[0][0]
    assert float(cut[1].abs().max()) > 0.9
