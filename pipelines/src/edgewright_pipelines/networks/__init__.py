"""The network families: what `train.fit` trains, `prune.shrink` narrows and `export.to_onnx` writes.

Each is a Classifier: raw watts float32 [batch, 1, window] in, logits [batch, classes] out, normalization inside.
"""

import torch

from edgewright_pipelines.networks.classifier import Classifier
from edgewright_pipelines.networks.study import StudyNetwork
from edgewright_pipelines.networks.thermometer import ThermometerNetwork
from edgewright_pipelines.recipe import Network, NetworkKind

__all__ = ["Classifier", "StudyNetwork", "ThermometerNetwork", "build"]


def build(network: Network, window: int, classes: int, *, seed: int = 0) -> Classifier:
    """A new network for windows of `window` seconds; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if network.kind is NetworkKind.STUDY_CNN:
            return StudyNetwork(network, window, classes)
        return ThermometerNetwork(network, classes)
