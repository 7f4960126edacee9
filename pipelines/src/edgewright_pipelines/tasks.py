"""What the two tasks differ in: outputs, losses, what the file answers, and its figures. The line is one for both."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from edgewright_pipelines import calibrate, export, sampling, train
from edgewright_pipelines.networks import Classifier
from edgewright_pipelines.recipe import Recipe
from edgewright_pipelines.sampling import Draws
from edgewright_pipelines.scores import Scores, score
from edgewright_pipelines.session import OUTPUT, probabilities
from edgewright_pipelines.sides import Sides
from edgewright_pipelines.splits import Split
from edgewright_pipelines.train import DISTILLATION_TEMPERATURE, Trained
from edgewright_pipelines.windows import WindowSet

Report = Callable[[int, int, float], None]


class Task(Protocol):
    """One task."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the file's outputs, the probabilities first."""

    def width(self, classes: int) -> int:
        """Numbers that the network gives for each window."""

    def sides(self, sides: Sides, seed: int) -> tuple[WindowSet, WindowSet, WindowSet]:
        """Train, validation and test windows as this task sees them."""

    def truth(self, windows: WindowSet) -> npt.NDArray[Any]:
        """What is true of them [n, …], as `loss` takes it."""

    def draws(self, split: Split, recipe: Recipe) -> Draws:
        """Batches of the training days."""

    def loss(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """How wrong an answer is."""

    def distance(self, logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """How far an answer is from another network's, both as the network gives them."""

    def fit(self, network: Classifier, split: Split, recipe: Recipe, *, seed: int, report: Report) -> Trained:
        """Train the base."""

    def finetune(
        self, network: Classifier, teacher: Classifier, split: Split, recipe: Recipe, *, seed: int, report: Report
    ) -> Trained:
        """Train what was pruned, towards the truth and the base's answers."""

    def temperature(self, network: Classifier, validation: WindowSet) -> float:
        """Divisor of the logits that makes probabilities mean what they say."""

    def answering(self, network: nn.Module) -> nn.Module:
        """The module that is exported: its answers, where the network gives logits."""

    def sharpened(self, rounded: bytes, validation: WindowSet) -> bytes:
        """The INT8 file with a temperature of its own."""

    def score(self, model: bytes, windows: WindowSet) -> Scores:
        """Figures of a file."""


class Identify(Task):
    """Which appliance is it? One of the classes for each window."""

    outputs: tuple[str, ...] = (OUTPUT,)

    def width(self, classes: int) -> int:
        """One logit for each class."""
        return classes

    def sides(self, sides: Sides, seed: int) -> tuple[WindowSet, WindowSet, WindowSet]:
        """The windows as they were cut."""
        return sides.train, sides.validation, sides.test

    def truth(self, windows: WindowSet) -> npt.NDArray[np.int64]:
        """Class numbers [n]."""
        return windows.label.astype(np.int64)

    def draws(self, split: Split, recipe: Recipe) -> Draws:
        """Single devices, changed a little."""
        return sampling.sampler(split.train, split.classes, recipe.window.seconds, recipe.training.augmentation)

    def loss(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Cross-entropy."""
        return functional.cross_entropy(logits, truth)

    def distance(self, logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Kullback-Leibler distance of the softened answers (Hinton, Vinyals and Dean, arXiv 1503.02531)."""
        soft = functional.softmax(wanted / DISTILLATION_TEMPERATURE, dim=1)
        answer = functional.log_softmax(logits / DISTILLATION_TEMPERATURE, dim=1)
        return functional.kl_div(answer, soft, reduction="batchmean") * DISTILLATION_TEMPERATURE**2

    def fit(self, network: Classifier, split: Split, recipe: Recipe, *, seed: int, report: Report) -> Trained:
        """See `train.fit`."""
        return train.fit(network, split, recipe, seed=seed, report=report)

    def finetune(
        self, network: Classifier, teacher: Classifier, split: Split, recipe: Recipe, *, seed: int, report: Report
    ) -> Trained:
        """See `train.finetune`."""
        return train.finetune(network, teacher, split, recipe, seed=seed, report=report)

    def temperature(self, network: Classifier, validation: WindowSet) -> float:
        """See `calibrate.temperature`."""
        return calibrate.temperature(network, validation)

    def answering(self, network: nn.Module) -> nn.Module:
        """Softmax behind it."""
        return export.Answering(network)

    def sharpened(self, rounded: bytes, validation: WindowSet) -> bytes:
        """See `calibrate.sharpened`."""
        return calibrate.sharpened(rounded, validation)

    def score(self, model: bytes, windows: WindowSet) -> Scores:
        """Macro-F1 and the rest."""
        return score(probabilities(model, windows.watts), windows)
