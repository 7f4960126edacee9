"""Third stage, `windows.cut → train.fit → prune.shrink`: days become a network, the same one for the same seed."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edgewright_pipelines.networks import Classifier
from edgewright_pipelines.recipe import Recipe
from edgewright_pipelines.sampling import Draws, Sampler, sampler
from edgewright_pipelines.splits import Split

BETAS = (0.9, 0.99)
HISTORY_POINTS = 100
ADAPTED_TO = 2048  # windows that a new network sees before its first step
DISTILLATION_TEMPERATURE = 2.0
DISTILLATION_SHARE = 0.5

Report = Callable[[int, int, float], None]
Answer = Callable[[Classifier, torch.Tensor], torch.Tensor]  # of watts
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]  # watts, answer, labels


class TrainingError(RuntimeError):
    """A run that went wrong; the text says at which step and what to change."""


@dataclass(frozen=True, slots=True)
class Point:
    """Mean loss since the former point, at one step."""

    step: int
    loss: float


@dataclass(frozen=True, slots=True)
class Trained:
    """A network in evaluation mode, what its loss did, and how long it took."""

    network: Classifier
    history: tuple[Point, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """Linear warm-up and a cosine to zero, counted in steps so that a run can be repeated."""

    steps: int
    learning_rate: float
    warmup_fraction: float

    def at(self, step: int) -> float:
        """Learning rate of step 0 … steps - 1."""
        warmup = max(1, round(self.steps * self.warmup_fraction))
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.steps - warmup)))


def silent(step: int, steps: int, loss: float) -> None:
    """Report nothing."""


def fit(
    network: Classifier, split: Split, recipe: Recipe, *, seed: int, report: Report = silent, threads: int = 1
) -> Trained:
    """Train a copy of `network` on the split's training days; its answers are for windows as they come, not as drawn.

    Raises SamplingError for days that cannot be drawn from, TrainingError if the loss stops being a number.
    """
    training = recipe.training
    schedule = Schedule(training.steps, training.learning_rate, training.warmup_fraction)
    draws = sampler(split.train, split.classes, recipe.window.seconds, training.augmentation)

    def loss(watts: torch.Tensor, members: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        each = labels.repeat_interleave(members.shape[1])
        return functional.cross_entropy(members.flatten(0, 1), each, label_smoothing=training.label_smoothing)

    fresh = adapted(network, draws, seed)
    trained = optimize(fresh, draws, loss, schedule, recipe, seed, report, threads, answer=type(fresh).members)
    return replace(trained, network=_shifted(trained.network, _prior_shift(draws, split, recipe)))


def _prior_shift(draws: Sampler, split: Split, recipe: Recipe) -> torch.Tensor:
    """What is added to the logits that drawn windows lead to: float32 [classes]."""
    return torch.from_numpy(recipe.training.prior_shift * draws.prior_shift(len(split.classes))).float()


def _shifted(network: Classifier, shift: torch.Tensor) -> Classifier:
    """A copy whose logits are so much higher."""
    network = copy.deepcopy(network)
    with torch.no_grad():
        network.output.bias.add_(shift)
    return network


def adapted(network: Classifier, draws: Draws, seed: int) -> Classifier:
    """A copy of a new network that knows where its training windows are."""
    network = copy.deepcopy(network)
    network.adapt(torch.from_numpy(draws.draw(ADAPTED_TO, np.random.default_rng(seed))[0]))
    return network


def finetune(
    network: Classifier,
    teacher: Classifier,
    split: Split,
    recipe: Recipe,
    *,
    seed: int,
    report: Report = silent,
    threads: int = 1,
) -> Trained:
    """Train a copy of a pruned `network`, in equal parts on labels and on answers of the network it was cut from."""
    compression, training = recipe.compression, recipe.training
    if not compression.finetune_steps:
        return Trained(copy.deepcopy(network).eval(), (), 0.0)
    schedule = Schedule(compression.finetune_steps, compression.finetune_learning_rate, training.warmup_fraction)
    draws = sampler(split.train, split.classes, recipe.window.seconds, training.augmentation)
    shift = _prior_shift(draws, split, recipe)
    teacher = _shifted(teacher, -shift).eval()

    def loss(watts: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = functional.softmax(teacher(watts) / DISTILLATION_TEMPERATURE, dim=1)
        answer = functional.log_softmax(logits / DISTILLATION_TEMPERATURE, dim=1)
        distance = functional.kl_div(answer, wanted, reduction="batchmean") * DISTILLATION_TEMPERATURE**2
        truth = functional.cross_entropy(logits, labels, label_smoothing=training.label_smoothing)
        return DISTILLATION_SHARE * distance + (1 - DISTILLATION_SHARE) * truth

    trained = optimize(_shifted(network, -shift), draws, loss, schedule, recipe, seed, report, threads)
    return replace(trained, network=_shifted(trained.network, shift))


def optimize(
    network: Classifier,
    draws: Draws,
    loss_of: Loss,
    schedule: Schedule,
    recipe: Recipe,
    seed: int,
    report: Report,
    threads: int,
    *,
    answer: Answer = Classifier.__call__,
) -> Trained:
    """Train `network` itself on `draws` by `loss_of` its `answer`; the result is its average over the last steps.

    Raises TrainingError if the loss stops being a number.
    """
    started = time.monotonic()
    rng = np.random.default_rng(seed)
    optimizer = _optimizer(network, recipe.training.weight_decay)
    # a quarter less time on processors; torch has the argument, its stubs do not
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = _Average(network, recipe.training.ema)
    _keep_zeros(network)
    history, recent = [], []
    every = max(1, schedule.steps // HISTORY_POINTS)
    with _torch(seed, threads):
        network.train()
        for step in range(schedule.steps):
            rate = schedule.at(step)
            recent.append(_step(network, draws, loss_of, answer, optimizer, rate, recipe, rng))
            average.update(network)
            if (step + 1) % every == 0 or step + 1 == schedule.steps:
                history.append(Point(step + 1, _mean(recent, step + 1)))
                report(step + 1, schedule.steps, history[-1].loss)
                recent = []
    trained = average.network.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    return Trained(trained, tuple(history), time.monotonic() - started)


def _keep_zeros(network: Classifier) -> None:
    """Weights of the ramps' reader that are exactly 0 stay so: a head was built not to see these ramps."""
    reader = network.ramps()
    if reader is not None and bool((reader.weight == 0).any()):
        seen = (reader.weight != 0).to(reader.weight.dtype)
        reader.weight.register_hook(lambda gradient: gradient * seen)  # type: ignore[no-untyped-call]


def _step(
    network: Classifier,
    draws: Draws,
    loss_of: Loss,
    answer: Answer,
    optimizer: torch.optim.Optimizer,
    rate: float,
    recipe: Recipe,
    rng: np.random.Generator,
) -> torch.Tensor:
    watts, labels = (torch.from_numpy(part) for part in draws.draw(recipe.training.batch, rng))
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss = loss_of(watts, answer(network, watts), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), recipe.training.clip)
    optimizer.step()
    return loss.detach()


def _mean(losses: list[torch.Tensor], step: int) -> float:
    loss = float(torch.stack(losses).mean())
    if not math.isfinite(loss):
        raise TrainingError(f"The loss is {loss} at step {step}; use a smaller learning_rate or a smaller clip.")
    return loss


def _optimizer(network: Classifier, decay: float) -> torch.optim.Optimizer:
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.dim() > 1], "weight_decay": decay},
        {"params": [parameter for parameter in trained if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, foreach=True)


class _Average:
    """Exponential average of weights and batch-norm statistics; early on it forgets faster, so that it never lags."""

    def __init__(self, network: Classifier, decay: float) -> None:
        self.network = copy.deepcopy(network)
        self.decay = decay
        self.updates = 0

    def update(self, network: Classifier) -> None:
        self.updates += 1
        share = 1 - min(self.decay, self.updates / (self.updates + 9))
        pairs = list(zip(_state(self.network), _state(network), strict=True))
        with torch.no_grad():
            floats = [pair for pair in pairs if pair[0].is_floating_point()]
            torch._foreach_lerp_([mine for mine, _ in floats], [theirs for _, theirs in floats], share)
            for mine, theirs in pairs:
                if not mine.is_floating_point():
                    mine.copy_(theirs)


def _state(network: Classifier) -> list[torch.Tensor]:
    return [*network.parameters(), *network.buffers()]


@contextmanager
def _torch(seed: int, threads: int) -> Iterator[None]:
    """Seeded and with so many threads inside, as before outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)
