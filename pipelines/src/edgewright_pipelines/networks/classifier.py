"""What every network family shares with the stages behind it: the name of its last layer and its blocks."""

from torch import nn


class Classifier(nn.Module):
    """Raw watts float32 [batch, 1, window] to logits [batch, classes].

    output: the last linear layer; pruning leaves its rows alone and export folds the temperature into it.
    """

    output: nn.Linear

    def fixed(self) -> tuple[nn.Module, ...]:
        """Layers whose weights are laid by hand and never trained; their size says nothing about their worth."""
        return ()


def convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Convolution along time (the last axis of [batch, channels, 1, steps]), batch norm, ReLU.

    Two axes although one would do: ONNX Runtime's fast layouts (NCHWc, NHWC) exist for two only.
    """
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, (1, kernel), padding=(0, kernel // 2), bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


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
