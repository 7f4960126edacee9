"""Inside `qat.to_int8`, before the training: which layers get weights of 4 bits, and how they start.

Some layers add up many inputs that never change sign, so that errors add up too. Each is asked; those keep 8 bits.
"""

import torch
from torch import nn

from edgewright_pipelines.networks import Classifier

BITS, MOST = 4, 7  # and the largest weight of so many
FEWEST = 4096  # weights of a layer that is worth it
LEAST_DECIBELS = 16.0  # of a layer's output beside the error of its rounded weights, both without their means
CUTS = tuple(part / 100 for part in range(30, 102, 2))  # of a channel's largest weight
SMALLEST = 2.0**-20  # so that a channel of zeros divides by something


def narrow(folded: Classifier, watts: torch.Tensor) -> frozenset[str]:
    """Names of the layers that bear 4 bits; their outliers are cut, and the mean of the error is in their bias.

    watts: training windows [n, 1, window] on which the outputs are compared.
    """
    chosen = set()
    for name, layer in folded.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.numel() >= FEWEST and _bears(folded, layer, watts):
            chosen.add(name)
    return frozenset(chosen)


def _bears(folded: Classifier, layer: nn.Conv2d | nn.Linear, watts: torch.Tensor) -> bool:
    """Whether the layer was made ready for 4 bits; otherwise it is as it was."""
    exact = layer.weight.detach().clone()
    cut = clipped(exact)
    with torch.no_grad():
        seen = _input(folded, layer, watts)
        wanted = layer(seen)
        layer.weight.copy_(_rounded(cut))
        error = layer(seen) - wanted
        mean, signal = _mean(error), _mean(wanted)
        shape = (1, -1, *[1] * (error.dim() - 2))
        loud = (wanted - signal.reshape(shape)).square().sum(), (error - mean.reshape(shape)).square().sum()
        bears = bool(10 * torch.log10(loud[0] / loud[1].clamp(min=SMALLEST)) >= LEAST_DECIBELS)
        layer.weight.copy_(cut if bears else exact)
        if bears and layer.bias is not None:
            layer.bias -= mean
    return bears


def clipped(weight: torch.Tensor) -> torch.Tensor:
    """A weight whose outliers are cut, each channel where rounding to 15 levels then errs least (in squares).

    With few levels one large weight would leave all others of its channel too coarse a step.
    """
    rows = weight.flatten(1)
    largest = rows.abs().amax(1, keepdim=True).clamp(min=SMALLEST)
    best, least = rows, torch.full_like(largest, torch.inf)
    for part in CUTS:
        cut = rows.clamp(-part * largest, part * largest)
        scale = part * largest / MOST
        error = ((cut / scale).round() * scale - rows).square().sum(1, keepdim=True)
        best, least = torch.where(error < least, cut, best), torch.minimum(error, least)
    return best.reshape(weight.shape)


def _rounded(weight: torch.Tensor) -> torch.Tensor:
    scale = weight.flatten(1).abs().amax(1).clamp(min=SMALLEST).reshape(-1, *[1] * (weight.dim() - 1)) / MOST
    return (weight / scale).round() * scale


def _input(folded: Classifier, layer: nn.Module, watts: torch.Tensor) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    folded(watts)
    hook.remove()
    return seen[0]


def _mean(values: torch.Tensor) -> torch.Tensor:
    """Of each channel."""
    return values.transpose(0, 1).flatten(1).mean(1)
