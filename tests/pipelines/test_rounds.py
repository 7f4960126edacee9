"""Pruning in rounds: what stays falls evenly, every round is followed by its training, and a seed is a network."""

import numpy as np
import pytest
import torch

from edgewright_pipelines import prune, rounds
from edgewright_pipelines.prune import Calibration
from edgewright_pipelines.recipe import Importance, Pruning, Scope
from edgewright_pipelines.tasks import Identify

POINT = Pruning(
    importance=Importance.TAYLOR, scope=Scope.LOCAL, ratio=0.5, ramps=0.75, rounds=2, finetune_steps=20
)  # the shared recipe says 30 steps


@pytest.fixture(scope="module")
def calibration(tiny_drawn):
    watts = tiny_drawn.watts[:32].astype(np.float32)[:, None, :]
    return Calibration(watts, tiny_drawn.label[:32].astype(np.int64))


def _pruned(point, trained, calibration, split, recipe, told=None):
    def report(step, steps, _):
        (told if told is not None else []).append((step, steps))

    return rounds.pruned(trained.network, point, calibration, split, recipe, Identify(), report)


def test_rounds_end_where_one_would_and_the_audit_is_of_the_whole(
    tiny_trained, calibration, tiny_split, tiny_recipe, monkeypatch
):
    asked, real = [], prune.shrink

    def shrink(network, point, *args, **settings):
        asked.append((round(point.ratio, 3), round(point.ramps, 3)))
        return real(network, point, *args, **settings)

    monkeypatch.setattr(prune, "shrink", shrink)
    told = []
    done = _pruned(POINT, tiny_trained, calibration, tiny_split, tiny_recipe, told)
    once = real(tiny_trained.network, POINT, calibration).audit
    assert asked == [(0.293, 0.5), (0.5, 0.75)]  # of what is there: 71 % twice, and half twice
    assert [(layer.layer, layer.before, layer.achieved) for layer in done.audit.layers] == [
        (layer.layer, layer.before, layer.achieved) for layer in once.layers
    ]
    assert done.audit.parameters_before == once.parameters_before
    assert done.network.ramps().weight.shape[1] == done.network.rhythm.channels
    assert told[0][0] == 1
    assert told[-1] == (20, 20)
    assert [step for step, _ in told] == sorted(step for step, _ in told)


def test_the_same_seed_gives_the_same_network(tiny_trained, calibration, tiny_split, tiny_recipe):
    first, second = (_pruned(POINT, tiny_trained, calibration, tiny_split, tiny_recipe).network for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("number", "every"), [(1, (1500,)), (2, (750, 750)), (3, (375, 375, 750)), (4, (250, 250, 250, 750))]
)
def test_the_last_round_has_half_of_the_steps(number, every):
    assert rounds.steps(1500, POINT.model_copy(update={"rounds": number})) == every
