"""The headline network: a cheap fixed front of soft thermometers, five convolutions, pooled head.

Absolute level and small steps decide which appliance runs, and convolutions on scaled watts lose both. So the front
says of each level of power how far it is exceeded, as one 1x1 convolution and a clamp, which also quantize and prune.
"""

import math

import torch
from torch import nn

from edgewright_pipelines.networks.classifier import Classifier, convolution, head
from edgewright_pipelines.recipe import Network

MOST_WATTS = 3600.0
# knots (thresholds in watts, geometric) of each statistic of a bin: maximum, minimum, mean, range, mean |step|
KNOTS = ((16, 1.0), (16, 1.0), (24, 0.5), (8, 1.0), (8, 0.1))


class ThermometerNetwork(Classifier):
    """Front, stages separated by a pooling of 2, and a head on time means and maxima."""

    def __init__(self, network: Network, classes: int) -> None:
        super().__init__()
        self.front = Front(network.bin_seconds)
        widths = (self.front.channels, *network.channels)
        self.stages = nn.ModuleList(
            convolution(inputs, outputs, kernel)
            for inputs, outputs, kernel in zip(widths[:-1], widths[1:], network.kernels, strict=True)
        )
        self.pool = nn.MaxPool2d((1, 2))
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.most = nn.AdaptiveMaxPool2d(1)
        features = self.front.channels + 2 * sum(network.channels)
        self.before, self.output = head(features, network.hidden, classes, network.dropout)

    def fixed(self) -> tuple[nn.Module, ...]:
        """The thermometers."""
        return (self.front.thermometers,)

    def forward(self, watts: torch.Tensor) -> torch.Tensor:
        """Logits [batch, classes] of watts [batch, 1, window]."""
        signal = self.front(watts)
        pooled = [self.mean(signal)]
        for index, stage in enumerate(self.stages):
            signal = stage(self.pool(signal) if index else signal)
            pooled += [self.mean(signal), self.most(signal)]
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
        bins = watts.unflatten(2, (-1, self.bin_seconds))  # [batch, 1, bins, bin_seconds]
        most, least, mean = bins.amax(3), bins.amin(3), bins.mean(3)
        steps = (bins[..., 1:] - bins[..., :-1]).abs().mean(3)
        statistics = torch.stack((most, least, mean, most - least, steps), dim=1)  # [batch, 5, 1, bins]
        return self.thermometers(torch.log(statistics + 1.0)).clamp(0.0, 1.0)


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
