"""The plain network of the published study: five convolutions with max pooling, two linear layers, ReLU."""

import torch
from torch import nn

from edgewright_pipelines.networks.classifier import Classifier, Reader, convolution, convolution_of, head, linear_of
from edgewright_pipelines.recipe import Network

LINEAR_SCALE = 1.0 / 1000.0  # kilowatts
POOLED_STEPS = 8


class StudyNetwork(Classifier):
    """Log and linear power as two channels, then convolutions, each followed by a pooling."""

    def __init__(self, network: Network, window: int, classes: int) -> None:
        super().__init__()
        widths = (2, *network.channels)
        self.stages = nn.ModuleList(
            convolution(inputs, outputs, kernel)
            for inputs, outputs, kernel in zip(widths[:-1], widths[1:], network.kernels, strict=True)
        )
        self.pool = nn.MaxPool2d((1, network.pool))
        steps = window // network.pool ** len(network.channels)
        self.shrink = nn.AvgPool2d((1, max(1, steps // POOLED_STEPS)))
        features = widths[-1] * (steps // max(1, steps // POOLED_STEPS))
        self.before, self.output = head(features, network.hidden, classes, network.dropout)

    def readers(self, stage: int) -> tuple[Reader, ...]:
        """The next stage; of the last, the head, which reads a channel's remaining steps in a row."""
        if stage + 1 < len(self.stages):
            return (Reader(convolution_of(self.stages[stage + 1])),)
        head = linear_of(self.before)
        return (Reader(head, columns=head.in_features // self.width(stage)),)

    def forward(self, watts: torch.Tensor) -> torch.Tensor:
        """Logits [batch, classes] of watts [batch, 1, window]."""
        watts = watts.unsqueeze(2)
        signal = torch.cat((torch.log(watts + 1.0), watts * LINEAR_SCALE), dim=1)
        for stage in self.stages:
            signal = self.pool(stage(signal))
        logits: torch.Tensor = self.output(self.before(self.shrink(signal).flatten(1)))
        return logits
