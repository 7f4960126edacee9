import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgewright_pipelines import calibrate, export, networks, prune, sampling, train
from edgewright_pipelines.recipe import Importance, Pruning, Scope
from edgewright_pipelines.train import Schedule


def _network(recipe, seed=3):
    return networks.build(recipe.network, recipe.window.seconds, 3, seed=seed)


def _with_training(recipe, **changes):
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=changes)})


def test_learns_three_appliances(tiny_trained, tiny_test):
    answers = calibrate.logits(tiny_trained.network, tiny_test).argmax(1).numpy()
    assert (answers == tiny_test.label).mean() > 0.95
    assert tiny_trained.history[-1].loss < 0.5 * tiny_trained.history[0].loss
    assert tiny_trained.history[-1].step == 60
    assert not tiny_trained.network.training


def test_same_seed_same_file_and_another_seed_another(tiny_recipe, tiny_split, tiny_trained):
    short = _with_training(tiny_recipe, steps=8)
    files = [
        export.to_onnx(train.fit(_network(short), tiny_split, short, seed=seed).network, 256) for seed in (3, 3, 4)
    ]
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_leaves_the_given_network_the_threads_and_the_global_seed_alone(tiny_recipe, tiny_split):
    short = _with_training(tiny_recipe, steps=2)
    network = _network(short)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    threads, seed = torch.get_num_threads(), torch.random.get_rng_state()
    train.fit(network, tiny_split, short, seed=3)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), seed)


def test_reports_steps_up_to_the_last(tiny_recipe, tiny_split):
    seen = []
    short = _with_training(tiny_recipe, steps=5)
    train.fit(_network(short), tiny_split, short, seed=3, report=lambda *point: seen.append(point))
    assert [step for step, _, _ in seen] == [1, 2, 3, 4, 5]
    assert {steps for _, steps, _ in seen} == {5}
    assert all(math.isfinite(loss) for _, _, loss in seen)


@pytest.fixture
def uneven(tiny_split):
    """Many days of the first class and few of the others, so that drawn shares are not the real ones."""
    many = [replace(tiny_split.train[0], name=f"more_{day}", date=f"2011-07-{day:02}") for day in range(1, 17)]
    return replace(tiny_split, train=(*tiny_split.train, *many))


def test_a_prior_shift_moves_the_answers_and_nothing_else(tiny_recipe, uneven):
    plain, shifted = (
        train.fit(_network(tiny_recipe), uneven, _with_training(tiny_recipe, steps=4, prior_shift=shift), seed=3)
        for shift in (0.0, 1.0)
    )
    assert torch.equal(plain.network.output.weight, shifted.network.output.weight)
    moved = shifted.network.output.bias - plain.network.output.bias
    assert moved[0] > 0.2
    assert max(moved[1:]) < -0.2


def test_fine_tuning_keeps_the_prior_shift_of_the_base(tiny_recipe, uneven):
    """Drawn windows have other shares: without a word of it, fine-tuning would take the shift back."""
    tuned = []
    for shift in (0.0, 1.0):
        recipe = _with_training(tiny_recipe, steps=20, prior_shift=shift)
        base = train.fit(_network(recipe), uneven, recipe, seed=3).network
        tuned.append((base, train.finetune(base, base, uneven, recipe, seed=3).network))
    (plain, plain_tuned), (shifted, shifted_tuned) = tuned
    moved = shifted.output.bias - plain.output.bias
    assert torch.allclose(shifted_tuned.output.bias - plain_tuned.output.bias, moved, atol=0.01)
    assert torch.allclose(shifted_tuned.output.weight, plain_tuned.output.weight, atol=0.01)


def test_the_average_lags_behind_the_last_weights(tiny_recipe, tiny_split):
    """With ema = 0 the result is the last step itself, so it must differ from an averaged one."""
    last, averaged = (
        train.fit(_network(tiny_recipe), tiny_split, _with_training(tiny_recipe, steps=6, ema=ema), seed=3)
        for ema in (0.0, 0.9)
    )
    assert not torch.equal(last.network.output.weight, averaged.network.output.weight)


def test_a_loss_that_explodes_is_an_error_with_the_step(tiny_recipe, tiny_split):
    network = _network(tiny_recipe)
    with torch.no_grad():
        network.output.weight.fill_(math.nan)
    with pytest.raises(train.TrainingError, match=r"loss is nan at step 1; use a smaller learning_rate"):
        train.fit(network, tiny_split, tiny_recipe, seed=3)


def test_fine_tuning_brings_a_pruned_network_back_and_leaves_the_teacher(
    tiny_recipe, tiny_split, tiny_trained, tiny_drawn, tiny_test
):
    watts = tiny_drawn.watts.astype("float32")[:, None, :]
    point = Pruning(importance=Importance.RANDOM, scope=Scope.LOCAL, ratio=0.5)
    shrunk = prune.shrink(tiny_trained.network, point, prune.Calibration(watts, tiny_drawn.label.astype("int64")))
    teacher = {key: value.clone() for key, value in tiny_trained.network.state_dict().items()}
    tuned = train.finetune(shrunk.network, tiny_trained.network, tiny_split, tiny_recipe, seed=3)
    assert all(torch.equal(teacher[key], value) for key, value in tiny_trained.network.state_dict().items())
    answers = calibrate.logits(tuned.network, tiny_test).argmax(1).numpy()
    assert (answers == tiny_test.label).mean() > 0.95
    assert tuned.network.output.weight.shape == shrunk.network.output.weight.shape


def test_no_fine_tuning_steps_means_the_network_as_it_is(tiny_recipe, tiny_split, tiny_trained):
    none = tiny_recipe.model_copy(
        update={"compression": tiny_recipe.compression.model_copy(update={"finetune_steps": 0})}
    )
    tuned = train.finetune(tiny_trained.network, tiny_trained.network, tiny_split, none, seed=3)
    assert torch.equal(tuned.network.output.weight, tiny_trained.network.output.weight)
    assert tuned.history == ()


def test_schedule_warms_up_then_falls_to_zero():
    schedule = Schedule(steps=100, learning_rate=1.0, warmup_fraction=0.1)
    rates = [schedule.at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001


def test_every_head_learns_to_answer_alone(tiny_recipe, tiny_split):
    """The loss is the mean of the heads' losses, not the loss of their mean, which is smaller."""
    shape = tiny_recipe.network.model_copy(update={"heads": 4, "dropout": 0.0})
    recipe = _with_training(tiny_recipe, steps=1, label_smoothing=0.0).model_copy(update={"network": shape})
    draws = sampling.sampler(tiny_split.train, tiny_split.classes, 256, recipe.training.augmentation)
    network = train.adapted(_network(recipe), draws, seed=3).train()
    watts, labels = (torch.from_numpy(part) for part in draws.draw(recipe.training.batch, np.random.default_rng(3)))
    members = network.members(watts).detach()
    each = [float(functional.cross_entropy(members[:, part], labels)) for part in range(members.shape[1])]
    told = train.fit(_network(recipe), tiny_split, recipe, seed=3).history[0].loss
    assert told == pytest.approx(sum(each) / len(each), rel=1e-4)
    assert told > 1.001 * float(functional.cross_entropy(members.mean(1), labels))


def test_what_a_head_cannot_see_it_does_not_learn_to_see(tiny_recipe, tiny_split):
    shape = tiny_recipe.network.model_copy(update={"heads": 4, "subspace": 0.5})
    recipe = _with_training(tiny_recipe, steps=3).model_copy(update={"network": shape})
    fresh = _network(recipe)
    trained = train.fit(fresh, tiny_split, recipe, seed=3).network
    tuned = train.finetune(trained, trained, tiny_split, recipe, seed=3).network
    blind = fresh.ramps().weight == 0
    for network in (trained, tuned):
        assert torch.equal(network.ramps().weight == 0, blind)
    assert not torch.equal(trained.ramps().weight, tuned.ramps().weight)
