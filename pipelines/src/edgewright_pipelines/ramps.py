"""Inside `prune.shrink`: ramps that were laid by hand leave too, by the worth of the columns that read them."""

import torch
from torch import nn

from edgewright_pipelines.recipe import Importance, Pruning

NAME = "ramps"
"""In the audit, beside the names of layers."""


def worth(layer: nn.Conv2d, point: Pruning, seed: int) -> torch.Tensor:
    """Importance [columns] of each input column of a 1x1 layer, measured as that of channels is.

    Taylor needs the gradients of the weights to be there.
    """
    if point.importance is Importance.RANDOM:
        return torch.rand(layer.in_channels, generator=torch.Generator().manual_seed(seed))
    weight = layer.weight.detach().flatten(1)
    if point.importance is Importance.TAYLOR:
        assert layer.weight.grad is not None  # noqa: S101 (for the type checker)
        return (weight * layer.weight.grad.flatten(1)).abs().sum(0)
    return weight.abs().pow(1 if point.importance is Importance.L1 else 2).sum(0)
