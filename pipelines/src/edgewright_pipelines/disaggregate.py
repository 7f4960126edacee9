"""The second task: which appliances run in a summed load, and how many watts each takes.

The network gives two numbers for each appliance: the logit of "on", and the log of its mean watts plus one.
"""

import copy
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from edgewright_pipelines import sampling, scores, train
from edgewright_pipelines.mixing import Mixer, MixtureSet, mixtures
from edgewright_pipelines.networks import Classifier
from edgewright_pipelines.recipe import Recipe
from edgewright_pipelines.sampling import Draws
from edgewright_pipelines.scores import Scores
from edgewright_pipelines.session import INPUT, OUTPUT, opened
from edgewright_pipelines.sides import Sides
from edgewright_pipelines.splits import Split
from edgewright_pipelines.tasks import Report
from edgewright_pipelines.train import Schedule, Trained
from edgewright_pipelines.windows import WindowSet

WATTS_OUTPUT: Final = "watts_by_class"
MOST_LOG_WATTS: Final = 9.0  # 8 kW
ON: Final = 0.5  # an appliance is answered as on from this probability
WATTS_SHARE: Final = 0.5  # of the loss, beside on/off
DISTILLATION_SHARE: Final = 0.5
COUNTS: Final = (512, 1024, 2048)  # mixtures of the train side (to calibrate on), validation and test
CHUNK: Final = 256

Floats = npt.NDArray[np.floating[Any]]


class Disaggregate:
    """On/off and watts of every appliance in a summed load."""

    outputs: tuple[str, ...] = (OUTPUT, WATTS_OUTPUT)

    def width(self, classes: int) -> int:
        """Two numbers for each class."""
        return 2 * classes

    def sides(self, sides: Sides, seed: int) -> tuple[WindowSet, WindowSet, WindowSet]:
        """Mixtures of each side's own windows, so no day is in two sides here either."""
        train_count, validation_count, test_count = COUNTS
        return (
            mixtures(sides.train, train_count, seed),
            mixtures(sides.validation, validation_count, seed + 1),
            mixtures(sides.test, test_count, seed + 2),
        )

    def truth(self, windows: WindowSet) -> npt.NDArray[np.float32]:
        """Mean watts [n, classes]."""
        return _mixed(windows).truth

    def draws(self, split: Split, recipe: Recipe) -> Draws:
        """Mixtures of changed windows of the training days."""
        parts = sampling.sampler(split.train, split.classes, recipe.window.seconds, recipe.training.augmentation)
        return Mixer(parts, len(split.classes))

    def loss(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Binary cross-entropy of on/off, and the squared error of log watts where an appliance is on."""
        on, watts = logits.chunk(2, dim=1)
        running = (truth > 0).to(logits.dtype)
        wrong = functional.binary_cross_entropy_with_logits(on, running)
        error = (running * (watts - torch.log1p(truth)) ** 2).sum() / running.sum().clamp(min=1.0)
        return wrong + WATTS_SHARE * error

    def distance(self, logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """The same towards another network's answers, weighted by how sure it is that an appliance is on."""
        (on, watts), (wanted_on, wanted_watts) = logits.chunk(2, dim=1), wanted.chunk(2, dim=1)
        sure = torch.sigmoid(wanted_on)
        wrong = functional.binary_cross_entropy_with_logits(on, sure)
        error = (sure * (watts - wanted_watts) ** 2).sum() / sure.sum().clamp(min=1.0)
        return wrong + WATTS_SHARE * error

    def fit(self, network: Classifier, split: Split, recipe: Recipe, *, seed: int, report: Report) -> Trained:
        """Train on mixtures."""
        training = recipe.training
        schedule = Schedule(training.steps, training.learning_rate, training.warmup_fraction)
        draws = self.draws(split, recipe)

        def loss(_: torch.Tensor, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
            return self.loss(logits, truth)

        return train.optimize(train.adapted(network, draws, seed), draws, loss, schedule, recipe, seed, report, 1)

    def finetune(
        self, network: Classifier, teacher: Classifier, split: Split, recipe: Recipe, *, seed: int, report: Report
    ) -> Trained:
        """In equal parts on the truth and on the base's answers."""
        compression = recipe.compression
        network, teacher = copy.deepcopy(network), copy.deepcopy(teacher).eval()
        if not compression.finetune_steps:
            return Trained(network.eval(), (), 0.0)
        rate, warmup = compression.finetune_learning_rate, recipe.training.warmup_fraction
        schedule = Schedule(compression.finetune_steps, rate, warmup)

        def loss(watts: torch.Tensor, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                wanted = teacher(watts)
            taught = self.distance(logits, wanted)
            return DISTILLATION_SHARE * taught + (1 - DISTILLATION_SHARE) * self.loss(logits, truth)

        return train.optimize(network, self.draws(split, recipe), loss, schedule, recipe, seed, report, 1)

    def temperature(self, network: Classifier, validation: WindowSet) -> float:
        """None: dividing would change the watts too."""
        return 1.0

    def answering(self, network: nn.Module) -> nn.Module:
        """Probabilities and watts behind it."""
        return Answering(network)

    def sharpened(self, rounded: bytes, validation: WindowSet) -> bytes:
        """As it is, for the same reason."""
        return rounded

    def score(self, model: bytes, windows: WindowSet) -> Scores:
        """The field's figures; see `measured`."""
        return measured(*answers(model, windows.watts), _mixed(windows))


class Answering(nn.Module):
    """Probabilities [batch, classes] of being on, and watts [batch, classes]: what it takes times that it is on."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, watts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both of watts [batch, 1, window]."""
        on, logarithm = self.network(watts).chunk(2, dim=1)
        probability = torch.sigmoid(on)
        return probability, probability * (torch.exp(logarithm.clamp(0.0, MOST_LOG_WATTS)) - 1.0)


def answers(model: bytes, windows: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """Probabilities and watts [n, classes] of a file for windows [n, window]."""
    session = opened(model)
    parts = [
        session.run([OUTPUT, WATTS_OUTPUT], {INPUT: windows[start : start + CHUNK].astype(np.float32)[:, None, :]})
        for start in range(0, len(windows), CHUNK)
    ]
    probability, watts = (np.concatenate(each) for each in zip(*parts, strict=True))
    return probability, watts


def measured(probability: Floats, watts: Floats, mixed: MixtureSet) -> Scores:
    """Figures as in the field (each over all windows).

    F1 of on/off for each class; accuracy: windows whose every appliance is right; mae: mean absolute error of watts
    over windows and classes; sae: mean over classes of |energy given - energy taken| / taken; match rate: sum of the
    smaller over sum of the larger of watts given and taken (Mayhorn et al. 2016). A mixture belongs to no day, so the
    figures by day are those by window.
    """
    truth = mixed.truth.astype(np.float64)
    given, running, answered = watts.astype(np.float64), truth > 0, probability >= ON
    by_class = {
        name: 2.0 * float((running & answered)[:, index].sum()) / float((running.sum(0) + answered.sum(0))[index])
        for index, name in enumerate(mixed.classes)
        if (running | answered)[:, index].any()
    }
    kwh = mixed.watts.shape[1] / scores.WATT_SECONDS_PER_KWH
    taken, error = truth.sum(0) * kwh, (given - truth).sum(0) * kwh
    ran = taken > 0
    clipped = np.clip(probability.astype(np.float64), scores.CLIP, 1 - scores.CLIP)
    macro, whole = float(np.mean(list(by_class.values()))), float((running == answered).all(1).mean())
    return Scores(
        windows=len(truth),
        days=len(truth),
        bce=float(-np.where(running, np.log(clipped), np.log(1 - clipped)).sum(axis=1).mean()),
        macro_f1=macro,
        macro_f1_by_day=macro,
        accuracy=whole,
        accuracy_by_day=whole,
        f1_by_class=by_class,
        energy_kwh=dict(zip(mixed.classes, taken.tolist(), strict=True)),
        energy_error_kwh=dict(zip(mixed.classes, error.tolist(), strict=True)),
        mae_watts=float(np.abs(given - truth).mean()),
        sae=float(np.mean(np.abs(error[ran]) / taken[ran])),
        match_rate=float(np.minimum(given, truth).sum() / np.maximum(given, truth).sum()),
    )


def _mixed(windows: WindowSet) -> MixtureSet:
    if not isinstance(windows, MixtureSet):
        raise TypeError("These windows are of single appliances; mix them first (mixing.mixtures).")
    return windows
