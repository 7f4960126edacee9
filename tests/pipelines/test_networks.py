import pytest
import torch

from edgewright_pipelines import fold, networks
from edgewright_pipelines.networks.rhythm import RAMPS
from edgewright_pipelines.networks.thermometer import KNOTS, Front
from edgewright_pipelines.recipe import Network, NetworkKind


def _shape(kind):
    return Network(kind=kind, channels=(16, 16, 24), kernels=(1, 5, 3), hidden=32, bin_seconds=16)


@pytest.mark.parametrize("kind", list(NetworkKind))
def test_gives_logits_for_raw_watts(kind):
    network = networks.build(_shape(kind), 512, 7).eval()
    logits = network(torch.rand(3, 1, 512) * 3000)
    assert logits.shape == (3, 7)
    assert not torch.allclose(logits.sum(1), torch.ones(3))  # logits, not probabilities


@pytest.mark.parametrize("kind", list(NetworkKind))
def test_same_seed_same_weights_and_no_trace_outside(kind):
    before = torch.random.get_rng_state()
    first, again, other = (networks.build(_shape(kind), 512, 7, seed=seed).state_dict() for seed in (4, 4, 5))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_study_network_has_five_convolutions_and_two_linear_layers_by_default():
    network = networks.build(Network(kind=NetworkKind.STUDY_CNN), 512, 32)
    kinds = [type(module) for module in network.modules()]
    assert kinds.count(torch.nn.Conv2d) == 5
    assert kinds.count(torch.nn.Linear) == 2


def _thermometers(bins):
    front = Front(16)
    return front(front.logarithms(bins))


def test_a_ramp_is_0_below_its_knot_and_1_above_the_next():
    count, least = KNOTS[0]
    low, high = (_thermometers(torch.full((1, 4, 16), watts)) for watts in (least, 3600.0))
    maxima_low, maxima_high = low[0, :count, 0, 0], high[0, :count, 0, 0]
    assert torch.allclose(maxima_low, torch.zeros(count), atol=1e-5)
    assert torch.allclose(maxima_high, torch.ones(count), atol=1e-4)


def test_ramps_rise_in_order_with_power():
    count, _ = KNOTS[0]
    ramps = _thermometers(torch.full((1, 4, 16), 100.0))[0, :count, 0, 0]
    assert torch.equal(ramps, ramps.sort(descending=True).values)
    assert 0 < int((ramps == 1).sum()) < count


def test_front_sees_steps_that_cancel_in_the_mean():
    flat = torch.full((1, 4, 16), 50.0)
    restless = flat.clone()
    restless[..., ::2] += 10
    restless[..., 1::2] -= 10
    steps = KNOTS[-1][0]
    assert _thermometers(restless)[0, -steps:].sum() > _thermometers(flat)[0, -steps:].sum()


def test_thermometers_are_not_trained():
    network = networks.build(_shape(NetworkKind.THERMOMETER_CNN), 512, 7)
    assert [parameter.requires_grad for module in network.fixed() for parameter in module.parameters()] == [False] * 2


def _of_heads():
    network = networks.build(_shape(NetworkKind.THERMOMETER_CNN).model_copy(update={"heads": 4}), 512, 7).eval()
    watts = torch.rand(8, 1, 512, generator=torch.Generator().manual_seed(0)) * 300
    network.adapt(watts)
    return network, watts


def test_the_answer_of_several_heads_is_their_mean():
    network, watts = _of_heads()
    members = network.members(watts)
    assert members.shape == (8, 1 + 4, 7)  # the pools, and four parts of the summary
    assert torch.allclose(members.mean(1), network(watts), atol=1e-5)
    assert torch.allclose(fold.fold(network)(watts), network(watts), atol=1e-4)


def test_a_head_reads_its_own_part_of_the_summary_only():
    network, watts = _of_heads()
    network.members(watts)[:, 1].sum().backward()  # the first part: channels 0 to 7 of 32
    asked = network.ramps().weight.grad.abs().flatten(1).sum(1) > 0
    assert asked[:8].any()
    assert not asked[8:].any()


def test_each_head_sees_a_part_of_the_statistics_of_its_own():
    shape = _shape(NetworkKind.THERMOMETER_CNN).model_copy(update={"heads": 4, "subspace": 0.3})
    weights = networks.build(shape, 512, 7).ramps().weight.detach().reshape(4, 8, -1, RAMPS)
    seen = (weights != 0).any(1).any(2)  # [heads, statistics]
    assert torch.equal((weights != 0).all(1).all(2), seen)  # with all its ramps, by all channels of the head
    assert 0.15 < float(seen.float().mean()) < 0.45
    assert len({tuple(row) for row in seen.tolist()}) == 4


def test_one_head_is_the_network_itself():
    network = networks.build(_shape(NetworkKind.THERMOMETER_CNN), 512, 7).eval()
    watts = torch.rand(2, 1, 512)
    assert torch.equal(network.members(watts)[:, 0], network(watts))
