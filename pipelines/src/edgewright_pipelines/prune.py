"""Stage `train.fit → prune.shrink → train.finetune → export.to_onnx`: whole channels leave a trained network."""

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch_pruning
from torch import nn
from torch.nn import functional
from torch_pruning.dependency import Group

from edgewright_pipelines.networks import Classifier
from edgewright_pipelines.recipe import Importance, Pruning
from edgewright_pipelines.selection import keep, rounded, weakest


class PruningError(ValueError):
    """Pruning that did not do what was asked; the text says in which layer."""


@dataclass(frozen=True, slots=True)
class LayerAudit:
    """Channels of one layer: before, asked to stay (before rounding to a multiple), and left."""

    layer: str
    before: int
    requested: int
    achieved: int

    def left_whole(self, round_to: int) -> bool:
        """Whether the layer was asked to lose at least half a multiple and lost nothing."""
        return self.achieved == self.before and self.before - self.requested > round_to / 2


@dataclass(frozen=True, slots=True)
class Audit:
    """What pruning did, layer by layer, against what was asked."""

    requested_ratio: float
    round_to: int
    layers: tuple[LayerAudit, ...]
    parameters_before: int
    parameters_after: int

    @property
    def achieved_ratio(self) -> float:
        """Part of all prunable channels that is gone."""
        before = sum(layer.before for layer in self.layers)
        return 1 - sum(layer.achieved for layer in self.layers) / before

    @property
    def errors(self) -> tuple[str, ...]:
        """One sentence for each layer that was asked to shrink and did not."""
        return tuple(
            f"Layer {layer.layer} kept all {layer.before} channels although {layer.before - layer.requested} should go;"
            f" use a round_to below {self.round_to} or a wider layer."
            for layer in self.layers
            if layer.left_whole(self.round_to)
        )


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A narrower network, not yet fine-tuned, and the audit of how it came about."""

    network: Classifier
    audit: Audit


@dataclass(frozen=True, slots=True)
class Calibration:
    """Labelled windows on which Taylor importance measures gradients: float32 [n, 1, window] and int64 [n]."""

    watts: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def shrink(
    network: Classifier, point: Pruning, calibration: Calibration, *, round_to: int = 8, seed: int = 0
) -> Shrunk:
    """Prune a copy of `network` to one point of the grid; the output layer and fixed layers keep all their channels.

    Raises PruningError if a layer that should shrink was left whole, or the pruned network does not run.
    """
    network = copy.deepcopy(network).eval()
    before = _parameters(network)
    if point.importance is Importance.TAYLOR:
        _gradients(network, calibration)
    graph = torch_pruning.DependencyGraph().build_dependency(network, torch.from_numpy(calibration.watts[:2]))
    groups = _groups(graph, network)
    scores = _scores(groups, point, seed)
    wanted = keep(scores, point.ratio, point.scope)
    layers = tuple(_cut(graph, network, name, scores[name], wanted[name], round_to) for name in groups)
    for parameter in network.parameters():
        parameter.grad = None
    audit = Audit(point.ratio, round_to, layers, before, _parameters(network))
    _check(network, audit, calibration)
    return Shrunk(network, audit)


def _gradients(network: Classifier, calibration: Calibration) -> None:
    network.zero_grad(set_to_none=True)
    logits = network(torch.from_numpy(calibration.watts))
    functional.cross_entropy(logits, torch.from_numpy(calibration.labels)).backward()  # type: ignore[no-untyped-call]


def _groups(graph: torch_pruning.DependencyGraph, network: Classifier) -> dict[str, Group]:
    """Layer name -> everything that must lose the same channels."""
    names = {module: name for name, module in network.named_modules()}
    whole = [network.output, *network.fixed()]
    found = graph.get_all_groups(ignored_layers=whole, root_module_types=[nn.Conv2d, nn.Linear])
    groups = {names[group[0].dep.target.module]: group for group in found}
    return dict(sorted(groups.items()))


def _scores(groups: dict[str, Group], point: Pruning, seed: int) -> dict[str, torch.Tensor]:
    """Importance [channels] of each layer, so scaled that layers can compete."""
    if point.importance is Importance.RANDOM:
        generator = torch.Generator().manual_seed(seed)
        return {name: torch.rand(len(group[0].idxs), generator=generator) for name, group in groups.items()}
    return {name: _measure(point.importance)(group).detach() for name, group in groups.items()}


def _measure(importance: Importance) -> torch_pruning.importance.Importance:
    if importance is Importance.TAYLOR:
        # Summed and not scaled to a mean of 1: it estimates by how much the loss grows, which is the same money in each
        # layer. Scaled, a quarter of the channels cost 20 points before fine-tuning; unscaled, less than one.
        return torch_pruning.importance.GroupTaylorImportance(group_reduction="sum", normalizer=None)
    return torch_pruning.importance.GroupMagnitudeImportance(p=1 if importance is Importance.L1 else 2)


def _cut(
    graph: torch_pruning.DependencyGraph,
    network: Classifier,
    name: str,
    score: torch.Tensor,
    requested: int,
    round_to: int,
) -> LayerAudit:
    before = len(score)
    layer = network.get_submodule(name)
    gone = weakest(score, rounded(requested, before, round_to))
    if gone:
        prune = (
            torch_pruning.prune_conv_out_channels
            if isinstance(layer, nn.Conv2d)
            else torch_pruning.prune_linear_out_channels
        )
        graph.get_pruning_group(layer, prune, idxs=gone).prune()
    return LayerAudit(name, before, requested, _channels(layer))


def _channels(layer: nn.Module) -> int:
    """Read from the weights themselves, so that the audit cannot repeat a wish as a fact."""
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)  # noqa: S101 (for the type checker)
    return int(weight.shape[0])


def _parameters(network: Classifier) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _check(network: Classifier, audit: Audit, calibration: Calibration) -> None:
    if audit.errors:
        raise PruningError(" ".join(audit.errors))
    try:
        with torch.no_grad():
            network(torch.from_numpy(calibration.watts[:1]))
    except RuntimeError as error:
        raise PruningError(f"The pruned network does not run: {error}") from error
