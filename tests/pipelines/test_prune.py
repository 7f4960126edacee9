import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgewright_pipelines import networks, prune, ramps
from edgewright_pipelines.networks.rhythm import RAMPS
from edgewright_pipelines.prune import Audit, LayerAudit
from edgewright_pipelines.recipe import Importance, Network, NetworkKind, Pruning, Scope
from edgewright_pipelines.selection import keep, rounded, weakest


@pytest.fixture(scope="module")
def calibration():
    rng = np.random.default_rng(0)
    watts = rng.gamma(0.5, 300, (24, 1, 512)).astype(np.float32)
    return prune.Calibration(watts, rng.integers(0, 7, 24))


def _network(kind=NetworkKind.THERMOMETER_CNN, channels=(16, 32, 24)):
    shape = Network(kind=kind, channels=channels, kernels=(1, 5, 3)[: len(channels)], hidden=32, bin_seconds=16)
    return networks.build(shape, 512, 7, seed=1).eval()


def _point(importance=Importance.L2, scope=Scope.LOCAL, ratio=0.5, ramps=0.0):
    return Pruning(importance=importance, scope=scope, ratio=ratio, ramps=ramps)


@pytest.mark.parametrize("importance", list(Importance))
@pytest.mark.parametrize("scope", list(Scope))
@pytest.mark.parametrize("kind", list(NetworkKind))
def test_every_kind_of_pruning_gives_a_smaller_network_that_answers(kind, scope, importance, calibration):
    network = _network(kind)
    shrunk = prune.shrink(network, _point(importance, scope), calibration)
    logits = shrunk.network(torch.from_numpy(calibration.watts))
    assert logits.shape == (24, 7)
    assert torch.isfinite(logits).all()
    assert shrunk.audit.parameters_after < 0.5 * shrunk.audit.parameters_before
    assert shrunk.audit.parameters_after == sum(p.numel() for p in shrunk.network.parameters())
    assert shrunk.audit.achieved_ratio == pytest.approx(0.5, abs=0.15)  # small layers, rounded to 8


def test_local_pruning_does_in_each_layer_what_was_asked(calibration):
    audit = prune.shrink(_network(), _point(), calibration).audit
    layers = {layer.layer: (layer.before, layer.requested, layer.achieved) for layer in audit.layers}
    assert layers == {
        "before.2": (32, 16, 16),
        "stages.0.0": (16, 8, 8),
        "stages.1.0": (32, 16, 16),
        "stages.2.0": (24, 12, 16),
        "stages.3.0": (32, 16, 16),  # the summary of the window
    }
    assert audit.errors == ()


@pytest.mark.parametrize("importance", list(Importance))
def test_ramps_leave_as_a_group_of_their_own_and_stand_in_the_audit(importance, calibration):
    network = _network()
    whole = network.rhythm.channels
    shrunk = prune.shrink(network, _point(importance, Scope.GLOBAL, 0.25, ramps=0.75), calibration)
    (layer,) = [layer for layer in shrunk.audit.layers if layer.layer == ramps.NAME]
    assert (layer.before, layer.requested) == (whole, whole / 4)
    assert layer.achieved == shrunk.network.ramps().weight.shape[1] == pytest.approx(whole / 4, abs=4)
    assert shrunk.audit.errors == ()
    assert network.rhythm.channels == whole
    assert torch.isfinite(shrunk.network(torch.from_numpy(calibration.watts))).all()


def test_dropping_ramps_is_leaving_out_their_columns(calibration):
    dropped, zeroed = _network(), _network()
    kept = [index for index in range(dropped.rhythm.channels) if index % 3]
    dropped.keep_ramps(kept)
    with torch.no_grad():
        zeroed.ramps().weight[:, ::3] = 0.0
    watts = torch.from_numpy(calibration.watts)
    assert torch.allclose(dropped(watts), zeroed(watts), atol=1e-5)


@pytest.mark.parametrize("importance", [Importance.L1, Importance.L2])
def test_ramps_that_nobody_weighs_go_first(importance, calibration):
    network = _network()
    heavy = list(range(0, network.rhythm.channels, 4))
    with torch.no_grad():
        weights = network.ramps().weight
        light = torch.ones(network.rhythm.channels, dtype=torch.bool)
        light[heavy] = False
        weights[:, light] = 0.0
        weights[:, heavy] += 0.1
    shrunk = prune.shrink(network, _point(importance, ratio=0.25, ramps=0.75), calibration, round_to=1).network
    assert shrunk.ramps().weight.abs().sum((0, 2, 3)).min() > 0
    assert torch.equal(shrunk.rhythm.rows, torch.tensor(heavy) // RAMPS)


def test_by_taylor_a_ramp_is_worth_what_its_weights_change_in_the_loss():
    layer = torch.nn.Conv2d(3, 2, 1, bias=False)
    with torch.no_grad():
        layer.weight[:] = torch.tensor([[1.0, 2.0, -3.0], [0.0, 1.0, 1.0]]).reshape(2, 3, 1, 1)
    layer.weight.grad = torch.tensor([[2.0, -1.0, 1.0], [9.0, 1.0, 0.0]]).reshape(2, 3, 1, 1)
    assert ramps.worth(layer, _point(Importance.TAYLOR), 0).tolist() == [2.0, 3.0, 3.0]


def test_ramps_that_must_stay_whole_are_an_error_and_not_a_surprise():
    left = Audit(0.5, 8, (LayerAudit(ramps.NAME, 1056, 528, 1056),), 10, 5)
    assert left.errors[0].startswith("Layer ramps kept all 1056 channels although 528 should go")


def test_a_later_round_counts_from_the_network_before_the_first(calibration):
    first = prune.shrink(_network(), _point(ratio=0.25, ramps=0.5), calibration)
    last = prune.shrink(first.network, _point(ratio=0.5, ramps=0.75), calibration, since=first.audit).audit
    once = prune.shrink(_network(), _point(ratio=0.5, ramps=0.75), calibration).audit
    assert last.layers == once.layers
    assert (last.parameters_before, last.parameters_after) == (once.parameters_before, once.parameters_after)


@pytest.mark.parametrize("ratio", [0.84, 0.875, 0.9])
def test_small_layers_shrink_at_ratios_where_rounding_down_would_leave_them_whole(ratio, calibration):
    """torch-pruning by itself: 32 channels, 27 or 28 to go, round_to 8 keeps 0, so it silently keeps all 32."""
    audit = prune.shrink(_network(), _point(ratio=ratio), calibration).audit
    achieved = {layer.layer: layer.achieved for layer in audit.layers}
    assert achieved["stages.0.0"] == achieved["stages.1.0"] == achieved["stages.2.0"] == 8


def test_a_layer_that_must_stay_whole_is_an_error_and_not_a_surprise(calibration):
    audit = prune.shrink(_network(), _point(ratio=0.75), calibration, round_to=16).audit
    assert [error[:64] for error in audit.errors] == [
        "Layer stages.0.0 kept all 16 channels although 12 should go; use"
    ]


def test_a_layer_that_lost_far_more_than_was_asked_is_an_error_too():
    layers = (LayerAudit("a", 64, 48, 44), LayerAudit("b", 64, 48, 32), LayerAudit("c", 64, 2, 8))
    assert [re.search(r"Layer (\w)", error)[1] for error in Audit(0.5, 8, layers, 10, 5).errors] == ["b"]


@pytest.mark.parametrize("kind", list(NetworkKind))
def test_a_shell_takes_the_weights_of_a_pruned_network_and_answers_alike(kind, calibration):
    network = _network(kind)
    ratio = 0.75 if kind is NetworkKind.THERMOMETER_CNN else 0.0
    shrunk = prune.shrink(network, _point(Importance.TAYLOR, ramps=ratio), calibration)
    widths = {layer.layer: layer.achieved for layer in shrunk.audit.layers}
    watts = torch.from_numpy(calibration.watts)
    shell = prune.narrowed(network, widths, watts[:2])
    shell.load_state_dict(shrunk.network.state_dict())
    assert torch.equal(shell(watts), shrunk.network(watts))


def test_audit_forgives_less_than_half_a_multiple():
    layers = (LayerAudit("a", 48, 45, 48), LayerAudit("b", 48, 43, 48), LayerAudit("c", 48, 24, 24))
    audit = Audit(0.5, 8, layers, 10, 5)
    assert [re.search(r"Layer (\w)", error)[1] for error in audit.errors] == ["b"]


def test_the_given_network_keeps_its_weights_and_gradients(calibration):
    network = _network()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    prune.shrink(network, _point(Importance.TAYLOR), calibration)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_thermometers_stay_whole_and_untrained_and_the_rest_trained(calibration):
    shrunk = prune.shrink(_network(), _point(Importance.TAYLOR), calibration).network
    fixed = {id(p) for module in shrunk.fixed() for p in module.parameters()}
    assert all(p.requires_grad != (id(p) in fixed) for p in shrunk.parameters())
    assert shrunk.front.thermometers.weight.shape[0] == shrunk.front.channels


def test_taylor_takes_global_cuts_where_the_loss_does_not_care(calibration):
    """The head does not read the last stage, so it and the stage that only feeds it lose all channels that must go."""
    network = _network(channels=(16, 32, 64))
    with torch.no_grad():  # columns of the last stage in the head: 2 x 16 of the first stage stand before them
        network.stages[0][1].bias += 5.0  # no channel of the first stage is dead
        network.before[3].bias += 5.0
        network.stages[3][1].bias += 5.0
        columns = slice(32, 32 + 2 * 64)  # those of the summary stand behind them
        network.before[0].weight[columns] = 0.0
        network.before[0].bias[columns] = 0.0
        network.before[2].weight[:, columns] = 0.0
    audit = prune.shrink(network, _point(Importance.TAYLOR, Scope.GLOBAL, 0.25), calibration).audit
    achieved = {layer.layer: (layer.before, layer.achieved) for layer in audit.layers}
    assert achieved["stages.0.0"] == (16, 16)
    assert achieved["before.2"] == (32, 32)
    assert achieved["stages.1.0"] == (32, 8)  # one multiple always stays
    assert achieved["stages.2.0"] == (64, 56)


def test_magnitude_removes_the_channels_that_carry_nothing(calibration):
    """Channels of the last stage whose weights in and out are nil go first, so hardly any answer changes."""
    network = _network(channels=(8, 8, 32))
    dead = [1, 5, 6, 7, 11, 20, 30, 31]
    norm, head = network.stages[2][1], network.before
    with torch.no_grad():
        network.stages[2][0].weight[dead] *= 1e-6
        norm.weight[dead] *= 1e-6
        for first in (16, 48):  # means, then maxima, behind those of the first stage
            head[0].weight[[first + channel for channel in dead]] *= 1e-6
            head[2].weight[:, [first + channel for channel in dead]] *= 1e-6
    watts = torch.from_numpy(calibration.watts)
    shrunk = prune.shrink(network, _point(ratio=0.25), calibration, round_to=1).network
    survivors = shrunk.stages[2][0].weight.flatten(1).norm(dim=1)
    assert shrunk.stages[2][0].weight.shape[0] == 24
    assert survivors.min() > 1e-3
    assert torch.isfinite(shrunk(watts)).all()


def test_random_pruning_goes_by_its_seed(calibration):
    weights = [
        prune.shrink(_network(), _point(Importance.RANDOM), calibration, seed=seed).network.stages[0][0].weight
        for seed in (1, 1, 2)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_global_scope_takes_from_the_layer_that_matters_least():
    scores = {"strong": torch.full((16,), 2.0), "weak": torch.linspace(0, 1, 16)}
    assert keep(scores, 0.5, Scope.GLOBAL) == {"strong": 16, "weak": 0}
    assert keep(scores, 0.5, Scope.LOCAL) == {"strong": 8, "weak": 8}


@given(st.integers(0, 300), st.integers(1, 300), st.integers(1, 32))
def test_rounding_is_the_nearest_multiple_within_the_layer(kept, before, round_to):
    result = rounded(min(kept, before), before, round_to)
    assert 1 <= result <= before
    assert result == before or result % round_to == 0
    if round_to <= min(kept, before) and result < before:
        assert abs(result - min(kept, before)) <= round_to / 2


def test_later_rounds_take_what_is_missing_of_the_whole():
    left = {"strong": torch.full((12,), 2.0), "weak": torch.linspace(0, 1, 12)}
    before = {"strong": 16, "weak": 16, "ramps": 99}
    assert keep(left, 0.5, Scope.GLOBAL, before) == {"strong": 12, "weak": 4}
    assert keep(left, 0.5, Scope.LOCAL, before) == {"strong": 8, "weak": 8}
    assert (
        keep(left, 0.125, Scope.GLOBAL, before) == keep(left, 0.125, Scope.LOCAL, before) == {"strong": 12, "weak": 12}
    )


def test_the_weakest_go():
    assert weakest(torch.tensor([3.0, 1.0, 2.0, 0.5]), kept=2) == [1, 3]
