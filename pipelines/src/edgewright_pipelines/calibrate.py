"""Between training and export: one temperature that makes probabilities mean what they say, found on validation."""

import numpy as np
import torch
from torch.nn import functional

from edgewright_pipelines.networks import Classifier
from edgewright_pipelines.windows import WindowSet

CHUNK = 256
LOWEST, HIGHEST = 0.1, 10.0
HALVINGS = 40


def temperature(network: Classifier, windows: WindowSet) -> float:
    """The divisor of the logits with the least cross-entropy on `windows`, between 0.1 and 10.

    Raises ValueError for an empty set.
    """
    if not len(windows):
        raise ValueError("There are no windows to calibrate on; the validation side has no active window.")
    return fit(logits(network, windows), torch.from_numpy(windows.label.astype(np.int64)))


def logits(network: Classifier, windows: WindowSet) -> torch.Tensor:
    """Logits [n, classes] of the network in evaluation mode."""
    network.eval()
    with torch.no_grad():
        return torch.cat([network(_batch(windows, start)) for start in range(0, len(windows), CHUNK)])


def fit(values: torch.Tensor, labels: torch.Tensor) -> float:
    """Golden-section search on the log of the temperature; the loss has one valley."""
    values = values.double()

    def loss(log: float) -> float:
        return float(functional.cross_entropy(values / np.exp(log), labels))

    low, high = float(np.log(LOWEST)), float(np.log(HIGHEST))
    golden = (5**0.5 - 1) / 2
    for _ in range(HALVINGS):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return float(np.exp((low + high) / 2))


def _batch(windows: WindowSet, start: int) -> torch.Tensor:
    return torch.from_numpy(windows.watts[start : start + CHUNK].astype(np.float32))[:, None, :]
