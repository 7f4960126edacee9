"""Inside export: batch norms become part of the layers beside them, so that the graph holds only what is computed.

And each channel is brought to about the same range, which changes no answer (ReLU and pooling pass a factor through)
but lets one INT8 scale fit all channels of a tensor; without it INT8 loses most of the accuracy of the head.
"""

import copy
from typing import Final, cast

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval, fuse_linear_bn_eval

from edgewright_pipelines.networks import Classifier
from edgewright_pipelines.networks.classifier import convolution_of

SIGMAS = 4.0  # how many deviations above its mean a channel is taken to reach
# A channel whose mean lies far below 0 is silent but for outliers, which reach further than its mean and deviation say:
# one window in a thousand once reached 800 times the range of all other channels, and INT8 left nothing of these.
LEAST_SIGMAS = 2.0
LEAST_RANGE = 1e-3  # and one that never varies must not be blown up
REVISION: Final = 2
"""Raised by hand when the folded weights become others: part of what decides an exported file."""


def fold(network: Classifier, temperature: float = 1.0) -> Classifier:
    """A copy in evaluation mode without batch norms, with even channels, whose logits are divided by `temperature`.

    What nobody reads is not computed in it.
    """
    network = copy.deepcopy(network).eval()
    network.lean()
    ranges = [_range(stage) for stage in network.stages]
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            _fold_sequence(module)
    with torch.no_grad():
        for stage, channels in enumerate(ranges):
            _even(network, stage, channels)
        for parameter in network.output.parameters():
            parameter.div_(temperature)
    return network


def _range(stage: nn.Module) -> torch.Tensor:
    """About the largest output of each channel [channels], from its batch norm alone."""
    assert isinstance(stage, nn.Sequential)  # noqa: S101 (for the type checker)
    norm = stage[1]
    assert isinstance(norm, nn.BatchNorm2d)  # noqa: S101
    deviation = norm.weight.detach().abs()
    return torch.maximum(norm.bias.detach() + SIGMAS * deviation, LEAST_SIGMAS * deviation).clamp(min=LEAST_RANGE)


def _even(network: Classifier, stage: int, channels: torch.Tensor) -> None:
    convolution = convolution_of(network.stages[stage])
    convolution.weight /= channels[:, None, None, None]
    assert convolution.bias is not None  # noqa: S101 (for the type checker)
    convolution.bias /= channels
    for reader in network.readers(stage):
        factors = channels.repeat_interleave(reader.columns)
        columns = reader.layer.weight[:, reader.first : reader.first + len(factors)]
        columns *= factors.reshape(1, -1, *([1] * (columns.dim() - 2)))


def _fold_sequence(sequence: nn.Sequential) -> None:
    layers = [layer for layer in sequence if not isinstance(layer, nn.Dropout)]
    folded: list[nn.Module] = []
    for layer in layers:
        before = folded[-1] if folded else None
        if isinstance(before, nn.Conv2d) and isinstance(layer, nn.BatchNorm2d):
            folded[-1] = cast(nn.Module, fuse_conv_bn_eval(before, layer))
        elif isinstance(before, nn.Linear) and isinstance(layer, nn.BatchNorm1d):
            folded[-1] = fuse_linear_bn_eval(before, layer)
        elif isinstance(before, nn.BatchNorm1d) and isinstance(layer, nn.Linear):
            folded[-1] = _norm_into_next(before, layer)
        else:
            folded.append(layer)
    for name in list(sequence._modules):
        delattr(sequence, name)
    for index, layer in enumerate(folded):
        sequence.add_module(str(index), layer)


def _norm_into_next(norm: nn.BatchNorm1d, linear: nn.Linear) -> nn.Linear:
    """W(s·x + t) + b = (W·s)x + (W·t + b)."""
    assert norm.running_mean is not None  # noqa: S101 (for the type checker)
    assert norm.running_var is not None  # noqa: S101
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    merged = nn.Linear(linear.in_features, linear.out_features).eval()
    with torch.no_grad():
        merged.weight.copy_(linear.weight * scale)
        merged.bias.copy_(linear.weight @ shift + (0.0 if linear.bias is None else linear.bias))
    return merged
