"""Inside export: batch norms become part of the layers beside them, so that the graph holds only what must be computed."""

import copy
from typing import cast

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval, fuse_linear_bn_eval

from edgewright_pipelines.networks import Classifier


def fold(network: Classifier, temperature: float = 1.0) -> Classifier:
    """A copy in evaluation mode without batch norms, whose logits are divided by `temperature`."""
    network = copy.deepcopy(network).eval()
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            _fold_sequence(module)
    with torch.no_grad():
        network.output.weight /= temperature
        network.output.bias /= temperature
    return network


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
