"""What every network family shares with the stages behind it: its last layer, its blocks and who reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Reader:
    """A layer that reads a stage's channels: from input column `first` on, `columns` in a row for each channel."""

    layer: nn.Conv2d | nn.Linear
    first: int = 0
    columns: int = 1


class Classifier(nn.Module):
    """Raw watts float32 [batch, 1, window] to logits [batch, classes].

    stages: the convolutions, each of `convolution` below; before: the head up to the last layer; output: the last
    linear layer, whose rows pruning leaves alone and into which export folds the temperature.
    """

    stages: nn.ModuleList
    before: nn.Sequential
    output: nn.Linear

    def adapt(self, watts: torch.Tensor) -> None:
        """Before training: fit what is laid by hand to windows [n, 1, window] of the training side, if anything is."""

    def fixed(self) -> tuple[nn.Module, ...]:
        """Layers whose weights are laid by hand and never trained; their size says nothing about their worth."""
        return ()

    def ramps(self) -> nn.Conv2d | None:
        """The layer that reads ramps laid by hand, of which pruning may drop any; None without such a layer."""
        return None

    def keep_ramps(self, kept: Sequence[int]) -> None:
        """Drop all ramps but these, and their columns of the layer."""
        raise NotImplementedError

    def lean(self) -> None:
        """Before export: leave out what is computed and read by nobody."""

    def members(self, watts: torch.Tensor) -> torch.Tensor:
        """While the base is trained: the logits of parts that learn each by itself [batch, parts, classes].

        Their mean is the network's answer.
        """
        logits: torch.Tensor = self(watts)
        return logits.unsqueeze(1)

    def readers(self, stage: int) -> tuple[Reader, ...]:
        """Every layer that reads the output of a stage, once batch norms are folded and `before` starts linear."""
        raise NotImplementedError

    def width(self, stage: int) -> int:
        """Channels of a stage, which pruning may have narrowed."""
        return convolution_of(self.stages[stage]).out_channels


def convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Convolution along time (the last axis of [batch, channels, 1, steps]), batch norm, ReLU.

    Two axes although one would do: ONNX Runtime's fast layouts (NCHWc, NHWC) exist for two only.
    """
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, (1, kernel), padding=(0, kernel // 2), bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def convolution_of(stage: nn.Module) -> nn.Conv2d:
    """The convolution of a stage."""
    assert isinstance(stage, nn.Sequential)  # noqa: S101 (for the type checker)
    assert isinstance(stage[0], nn.Conv2d)  # noqa: S101
    return stage[0]


def head(features: int, hidden: int, classes: int, dropout: float) -> tuple[nn.Sequential, nn.Linear]:
    """The study's two linear layers: everything before the last, and the last."""
    before = nn.Sequential(
        nn.BatchNorm1d(features),
        nn.Dropout(dropout),
        nn.Linear(features, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
    )
    return before, nn.Linear(hidden, classes)


def linear_of(before: nn.Sequential) -> nn.Linear:
    """The linear layer of a folded head."""
    assert isinstance(before[0], nn.Linear)  # noqa: S101 (for the type checker)
    return before[0]
