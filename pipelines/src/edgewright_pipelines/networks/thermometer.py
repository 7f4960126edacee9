"""The network of our recipes: a fixed front, convolutions beside a summary of the window, and a head that reads both.

Absolute level and small steps decide which appliance runs, and convolutions on scaled watts lose both. So the front
says of each level of power how far it is exceeded, as one 1x1 convolution and a clamp, which also quantize and prune.
What moves within a bin is lost to it; `rhythm.Rhythm` tells that of the window as a whole.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from edgewright_pipelines.networks.classifier import Classifier, Reader, convolution, convolution_of, head, linear_of
from edgewright_pipelines.networks.rhythm import RAMPS, Rhythm
from edgewright_pipelines.recipe import Network

MOST_WATTS = 3600.0
# knots (thresholds in watts, geometric) of each statistic of a bin: maximum, minimum, mean, range, mean |step|
KNOTS = ((16, 1.0), (16, 1.0), (24, 0.5), (8, 1.0), (8, 0.1))


class ThermometerNetwork(Classifier):
    """Front, stages separated by a pooling of 2, and a head on the time mean and maximum of every second stage.

    The last of `stages` is no convolution along time: it reads the rhythm's ramps, and the head reads it as it is.
    With several heads the last layer reads pools and summary itself, and its answer is the mean of `members`.
    """

    def __init__(self, network: Network, classes: int) -> None:
        super().__init__()
        self.front = Front(network.bin_seconds)
        self.rhythm = Rhythm(network.bin_seconds, len(KNOTS), network.changes)
        widths = (self.front.channels, *network.channels)
        along = [
            convolution(inputs, outputs, kernel)
            for inputs, outputs, kernel in zip(widths[:-1], widths[1:], network.kernels, strict=True)
        ]
        self.summary = len(along)
        self.stages = nn.ModuleList([*along, convolution(self.rhythm.channels, network.hidden, 1)])
        features = self._before_summary() + self.width(self.summary)
        self.heads = network.heads
        if self.heads == 1:
            self.before, self.output = head(features, network.hidden, classes, network.dropout)
        else:
            self.before, self.output = nn.Sequential(nn.Dropout(network.dropout)), nn.Linear(features, classes)
        if network.subspace < 1:
            _blind(self.ramps(), self.heads, network.subspace)

    def adapt(self, watts: torch.Tensor) -> None:
        """Lay the knots of the rhythm where the windows [n, 1, window] are."""
        bins = self._bins(watts)
        with torch.no_grad():
            self.rhythm.adapt(bins, self.front.logarithms(bins))

    def pooled(self) -> tuple[int, ...]:
        """Stages whose pools the head reads: the last along time, and each second one before it."""
        return tuple(stage for stage in range(self.summary) if (self.summary - 1 - stage) % 2 == 0)

    def fixed(self) -> tuple[nn.Module, ...]:
        """The thermometers."""
        return (self.front.thermometers,)

    def ramps(self) -> nn.Conv2d:
        """The summary, which reads the rhythm's ramps."""
        return convolution_of(self.stages[self.summary])

    def keep_ramps(self, kept: Sequence[int]) -> None:
        """Drop all ramps of the rhythm but these, and their columns of the summary."""
        layer = self.ramps()
        layer.weight = nn.Parameter(layer.weight.detach()[:, kept].clone())
        layer.in_channels = len(kept)
        self.rhythm.keep(kept)

    def lean(self) -> None:
        """Statistics of the rhythm that no ramp reads."""
        self.rhythm.lean()

    def readers(self, stage: int) -> tuple[Reader, ...]:
        """The next stage and, for a pooled stage, the head, twice: its means and maxima; of the summary, the head."""
        head = linear_of(self.before) if self.heads == 1 else self.output
        if stage == self.summary:
            return (Reader(head, self._before_summary()),)
        found = [Reader(convolution_of(self.stages[stage + 1]))] if stage + 1 < self.summary else []
        if stage in self.pooled():
            first = 2 * sum(self.width(earlier) for earlier in self.pooled() if earlier < stage)
            found += [Reader(head, first), Reader(head, first + self.width(stage))]
        return tuple(found)

    def forward(self, watts: torch.Tensor) -> torch.Tensor:
        """Logits [batch, classes] of watts [batch, 1, window]."""
        logits: torch.Tensor = self.output(self._read(watts))
        return logits

    def members(self, watts: torch.Tensor) -> torch.Tensor:
        """What each part says alone: the pools, then equal parts of the summary, which must not be pruned."""
        if self.heads == 1:
            return super().members(watts)
        widths = [self._before_summary(), *[self.width(self.summary) // self.heads] * self.heads]
        parts = zip(torch.split(self._read(watts), widths, 1), torch.split(self.output.weight, widths, 1), strict=True)
        said = torch.stack([functional.linear(part, weight) for part, weight in parts], dim=1)
        return said * len(widths) + self.output.bias

    def _read(self, watts: torch.Tensor) -> torch.Tensor:
        """What the last layer reads: [batch, features]."""
        bins = self._bins(watts)
        logs = self.front.logarithms(bins)
        signal = self.front(logs)
        seen = []
        for index, stage in enumerate(self.stages[: self.summary]):
            signal = stage(functional.max_pool2d(signal, (1, 2)) if index else signal)
            if index in self.pooled():
                # Pooling over the whole length, not a reduction: only pooling stays in the fast layouts and in INT8.
                whole = (1, signal.shape[3])
                seen += [functional.avg_pool2d(signal, whole), functional.max_pool2d(signal, whole)]
        seen.append(self.stages[self.summary](self.rhythm(bins, logs)))
        read: torch.Tensor = self.before(torch.cat(seen, dim=1).flatten(1))
        return read

    def _bins(self, watts: torch.Tensor) -> torch.Tensor:
        return watts.reshape(watts.shape[0], -1, self.front.bin_seconds)

    def _before_summary(self) -> int:
        """Columns of the head that stand before those of the summary."""
        return 2 * sum(self.width(stage) for stage in self.pooled())


def _blind(summary: nn.Conv2d, heads: int, part: float) -> None:
    """Leave each head's channels the ramps of a random `part` of the statistics; the other weights are 0 and stay so.

    The random subspace method (Ho, IEEE TPAMI 20, 1998): heads that see other things err elsewhere.
    """
    statistics = summary.in_channels // RAMPS
    seen = torch.rand(heads, statistics) < part
    channels = seen.repeat_interleave(summary.out_channels // heads, 0).repeat_interleave(RAMPS, 1)
    with torch.no_grad():
        summary.weight.mul_(channels[:, :, None, None] / math.sqrt(part))  # as large a sum, of fewer ramps


class Front(nn.Module):
    """Statistics of each bin and thermometers of each statistic: [batch, channels, 1, bins] in 0..1."""

    def __init__(self, bin_seconds: int) -> None:
        super().__init__()
        self.bin_seconds = bin_seconds
        self.channels = sum(count for count, _ in KNOTS)
        self.thermometers = nn.Conv2d(len(KNOTS), self.channels, 1)
        with torch.no_grad():
            _lay_knots(self.thermometers)
        for parameter in self.thermometers.parameters():
            parameter.requires_grad_(False)

    def logarithms(self, bins: torch.Tensor) -> torch.Tensor:
        """log(1 + watts) of each statistic [batch, 5, bins], of bins [batch, bins, seconds] in watts."""
        most, least, mean = bins.amax(2), bins.amin(2), bins.mean(2)
        steps = (bins[:, :, 1:] - bins[:, :, :-1]).abs().mean(2)
        statistics = torch.stack((most, least, mean, most - least, steps), dim=1)
        return torch.log(statistics + 1.0)

    def forward(self, logs: torch.Tensor) -> torch.Tensor:
        """Thermometers of `logarithms`."""
        ramps: torch.Tensor = self.thermometers(logs.unsqueeze(2))
        return ramps.clamp(0.0, 1.0)


def _lay_knots(thermometers: nn.Conv2d) -> None:
    """Ramp i of a statistic rises from 0 at knot i to 1 at knot i + 1 of log(1 + watts)."""
    thermometers.weight.zero_()
    row = 0
    for column, (count, least) in enumerate(KNOTS):
        knots = torch.log1p(torch.logspace(math.log10(least), math.log10(MOST_WATTS), count + 1))
        slopes = 1.0 / (knots[1:] - knots[:-1])
        thermometers.weight[row : row + count, column, 0, 0] = slopes
        assert thermometers.bias is not None  # noqa: S101 (for the type checker)
        thermometers.bias[row : row + count] = -slopes * knots[:-1]
        row += count
