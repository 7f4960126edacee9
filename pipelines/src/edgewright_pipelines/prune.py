"""Inside `rounds.pruned`, before `train.finetune`: whole channels, and ramps, leave a trained network."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch_pruning
from torch import nn
from torch.nn import functional
from torch_pruning.dependency import Group

from edgewright_pipelines import ramps
from edgewright_pipelines.networks import Classifier
from edgewright_pipelines.recipe import Importance, Pruning
from edgewright_pipelines.selection import keep, rounded, weakest

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Of logits and truth; what Taylor importance estimates the growth of."""


class PruningError(ValueError):
    """Pruning that left a network that cannot run; the text says why."""


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

    def astray(self, round_to: int) -> bool:
        """Whether more than rounding lies between what was asked and what is left (one multiple always stays)."""
        return abs(self.achieved - max(self.requested, round_to)) > round_to / 2 and self.achieved != self.before

    def as_json(self) -> dict[str, str | int]:
        """For a stage's file and for reports."""
        return asdict(self)


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
        """One sentence for each layer that did not shrink, or not as asked."""
        return tuple(sentence for layer in self.layers if (sentence := self._error(layer)))

    def _error(self, layer: LayerAudit) -> str:
        if layer.left_whole(self.round_to):
            return (
                f"Layer {layer.layer} kept all {layer.before} channels although {layer.before - layer.requested} should"
                f" go; use a round_to below {self.round_to} or a wider layer."
            )
        if layer.astray(self.round_to):
            return f"Layer {layer.layer} has {layer.achieved} channels where {layer.requested} were asked for."
        return ""


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A narrower network, not yet fine-tuned, and the audit of how it came about."""

    network: Classifier
    audit: Audit


@dataclass(frozen=True, slots=True)
class Calibration:
    """Windows on which Taylor importance measures gradients: float32 [n, 1, window], and their truth [n, …]."""

    watts: npt.NDArray[np.float32]
    labels: npt.NDArray[Any]


def shrink(
    network: Classifier,
    point: Pruning,
    calibration: Calibration,
    *,
    round_to: int = 8,
    seed: int = 0,
    loss: Loss = functional.cross_entropy,
    since: Audit | None = None,
) -> Shrunk:
    """Prune a copy of `network` to one point of the grid; the output layer and fixed layers keep all their channels.

    since: what an earlier round did; the point's ratios are then of the network before that, and so is the audit.
    What was not done as asked stands in the audit's errors, by which `audit.judge` refuses the variant.
    Raises PruningError if the pruned network does not run.
    """
    network = copy.deepcopy(network).eval()
    parameters = since.parameters_before if since else _parameters(network)
    if point.importance is Importance.TAYLOR:
        _gradients(network, calibration, loss)
    graph = torch_pruning.DependencyGraph().build_dependency(network, torch.from_numpy(calibration.watts[:2]))
    groups = _groups(graph, network)
    scores = _scores(groups, point, seed)
    before = _before(network, scores, since)
    reading = network.ramps() if point.ramps else None
    worth = None if reading is None else ramps.worth(reading, point, seed)
    wanted = keep(scores, point.ratio, point.scope, before)
    layers = [_cut(graph, network, name, scores[name], wanted[name], before[name], round_to) for name in groups]
    if worth is not None:
        layers.append(_cut_ramps(network, worth, point.ramps, before[ramps.NAME], round_to))
    for parameter in network.parameters():
        parameter.grad = None
    audit = Audit(point.ratio, round_to, tuple(layers), parameters, _parameters(network))
    _check(network, calibration)
    return Shrunk(network, audit)


def narrowed(network: Classifier, widths: Mapping[str, int], example: torch.Tensor) -> Classifier:
    """A copy with so many channels in each named layer, and ramps, whichever they are: a shell for weights pruned
    earlier.
    """
    network = copy.deepcopy(network).eval()
    graph = torch_pruning.DependencyGraph().build_dependency(network, example)
    for name in _groups(graph, network):
        before = _channels(network.get_submodule(name))
        _remove(graph, network, name, list(range(widths[name], before)))
    if ramps.NAME in widths:
        network.keep_ramps(range(widths[ramps.NAME]))
    return network


def _before(network: Classifier, scores: Mapping[str, torch.Tensor], since: Audit | None) -> dict[str, int]:
    """Channels of each layer, and ramps, before anything was pruned."""
    reading = network.ramps()
    now = {name: len(score) for name, score in scores.items()}
    now |= {} if reading is None else {ramps.NAME: reading.in_channels}
    return now | ({layer.layer: layer.before for layer in since.layers} if since else {})


def _gradients(network: Classifier, calibration: Calibration, loss: Loss) -> None:
    network.zero_grad(set_to_none=True)
    logits = network(torch.from_numpy(calibration.watts))
    loss(logits, torch.from_numpy(calibration.labels)).backward()  # type: ignore[no-untyped-call]


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
    before: int,
    round_to: int,
) -> LayerAudit:
    _remove(graph, network, name, weakest(score, rounded(requested, len(score), round_to)))
    return LayerAudit(name, before, requested, _channels(network.get_submodule(name)))


def _cut_ramps(network: Classifier, worth: torch.Tensor, ratio: float, before: int, round_to: int) -> LayerAudit:
    requested = min(round(before * (1 - ratio)), len(worth))
    gone = set(weakest(worth, rounded(requested, len(worth), round_to)))
    network.keep_ramps([index for index in range(len(worth)) if index not in gone])
    reading = network.ramps()
    assert reading is not None  # noqa: S101 (for the type checker)
    return LayerAudit(ramps.NAME, before, requested, int(reading.weight.shape[1]))


def _remove(graph: torch_pruning.DependencyGraph, network: Classifier, name: str, gone: list[int]) -> None:
    layer = network.get_submodule(name)
    linear = isinstance(layer, nn.Linear)
    prune = torch_pruning.prune_linear_out_channels if linear else torch_pruning.prune_conv_out_channels
    if gone:
        graph.get_pruning_group(layer, prune, idxs=gone).prune()


def _channels(layer: nn.Module) -> int:
    """Read from the weights themselves, so that the audit cannot repeat a wish as a fact."""
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)  # noqa: S101 (for the type checker)
    return int(weight.shape[0])


def _parameters(network: Classifier) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _check(network: Classifier, calibration: Calibration) -> None:
    try:
        with torch.no_grad():
            network(torch.from_numpy(calibration.watts[:1]))
    except RuntimeError as error:
        raise PruningError(f"The pruned network does not run: {error}") from error
