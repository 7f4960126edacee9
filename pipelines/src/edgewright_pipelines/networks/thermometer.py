"""The headline network: a cheap fixed front of soft thermometers, five convolutions, pooled head.

Absolute level and small steps decide which appliance runs, and convolutions on scaled watts lose both. So the front
says of each level of power how far it is exceeded, as one 1x1 convolution and a clamp, which also quantize and prune.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from edgewright_pipelines.networks.classifier import Classifier, Reader, convolution, convolution_of, head, linear_of
from edgewright_pipelines.recipe import Network

MOST_WATTS = 3600.0
# knots (thresholds in watts, geometric) of each statistic of a bin: maximum, minimum, mean, range, mean |step|
KNOTS = ((16, 1.0), (16, 1.0), (24, 0.5), (8, 1.0), (8, 0.1))


class ThermometerNetwork(Classifier):
    """Front, stages separated by a pooling of 2, and a head on the time mean and maximum of every second stage."""

    def __init__(self, network: Network, classes: int) -> None:
        super().__init__()
        self.front = Front(network.bin_seconds)
        widths = (self.front.channels, *network.channels)
        self.stages = nn.ModuleList(
            convolution(inputs, outputs, kernel)
            for inputs, outputs, kernel in zip(widths[:-1], widths[1:], network.kernels, strict=True)
        )
        features = 2 * sum(self.width(stage) for stage in self.pooled())
        self.before, self.output = head(features, network.hidden, classes, network.dropout)

    def pooled(self) -> tuple[int, ...]:
        """Stages that the head reads: the last, and each second one before it."""
        return tuple(stage for stage in range(len(self.stages)) if (len(self.stages) - 1 - stage) % 2 == 0)

    def fixed(self) -> tuple[nn.Module, ...]:
        """The thermometers."""
        return (self.front.thermometers,)

    def readers(self, stage: int) -> tuple[Reader, ...]:
        """The next stage and, for a pooled stage, the head, twice: its means and its maxima."""
        found = [Reader(convolution_of(self.stages[stage + 1]))] if stage + 1 < len(self.stages) else []
        if stage in self.pooled():
            first = 2 * sum(self.width(earlier) for earlier in self.pooled() if earlier < stage)
            found += [Reader(linear_of(self.before), first), Reader(linear_of(self.before), first + self.width(stage))]
        return tuple(found)

    def forward(self, watts: torch.Tensor) -> torch.Tensor:
        """Logits [batch, classes] of watts [batch, 1, window]."""
        signal = self.front(watts)
        pooled = []
        for index, stage in enumerate(self.stages):
            signal = stage(functional.max_pool2d(signal, (1, 2)) if index else signal)
            if index in self.pooled():
                # Pooling over the whole length, not a reduction: only pooling stays in the fast layouts and in INT8.
                whole = (1, signal.shape[3])
                pooled += [functional.avg_pool2d(signal, whole), functional.max_pool2d(signal, whole)]
        logits: torch.Tensor = self.output(self.before(torch.cat(pooled, dim=1).flatten(1)))
        return logits


class Front(nn.Module):
    """Bins of a window, statistics of each bin, thermometers of each statistic: [batch, channels, 1, bins] in 0..1."""

    def __init__(self, bin_seconds: int) -> None:
        super().__init__()
        self.bin_seconds = bin_seconds
        self.channels = sum(count for count, _ in KNOTS)
        self.thermometers = nn.Conv2d(len(KNOTS), self.channels, 1)
        with torch.no_grad():
            _lay_knots(self.thermometers)
        for parameter in self.thermometers.parameters():
            parameter.requires_grad_(False)

    def forward(self, watts: torch.Tensor) -> torch.Tensor:
        """Thermometers of watts [batch, 1, window]."""
        bins = watts.reshape(watts.shape[0], 1, -1, self.bin_seconds)
        most, least, mean = bins.amax(3), bins.amin(3), bins.mean(3)
        steps = (bins[..., 1:] - bins[..., :-1]).abs().mean(3)
        statistics = torch.cat((most, least, mean, most - least, steps), dim=1).unsqueeze(2)  # [batch, 5, 1, bins]
        ramps: torch.Tensor = self.thermometers(torch.log(statistics + 1.0))
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
