"""Beside export and quantization: one temperature that makes probabilities mean what they say, found on validation.

Rounding moves it, so an INT8 file gets its own, inside the graph too.
"""

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional

from edgewright_pipelines.export import serialize
from edgewright_pipelines.networks import Classifier
from edgewright_pipelines.session import probabilities
from edgewright_pipelines.windows import WindowSet

CHUNK = 256
LOWEST, HIGHEST = 0.1, 10.0
HALVINGS = 40
LEAST = 1e-12  # of a probability, whose logarithm is taken
SCALE = "sharpened"  # until serialization shortens it


def temperature(network: Classifier, windows: WindowSet) -> float:
    """The divisor of the logits with the least cross-entropy on `windows`, between 0.1 and 10.

    Raises ValueError for an empty set.
    """
    if not len(windows):
        raise ValueError("There are no windows to calibrate on; the validation side has no active window.")
    return fit(logits(network, windows), torch.from_numpy(windows.label.astype(np.int64)))


def sharpened(model: bytes, windows: WindowSet) -> bytes:
    """A QDQ file whose last scale is divided by the temperature that `windows` ask for; no operator is added.

    Raises ValueError for an empty set or a file whose softmax does not read a DequantizeLinear.
    """
    if not len(windows):
        raise ValueError("There are no windows to calibrate on; the validation side has no active window.")
    answers = np.clip(probabilities(model, windows.watts).astype(np.float64), LEAST, 1.0)
    heat = fit(torch.from_numpy(np.log(answers)), torch.from_numpy(windows.label.astype(np.int64)))
    graph = onnx.load_from_string(model)
    source = {output: node for node in graph.graph.node for output in node.output}
    softmax = next(node for node in graph.graph.node if node.op_type == "Softmax")
    last = source.get(softmax.input[0])
    if last is None or last.op_type != "DequantizeLinear":
        raise ValueError("The softmax of this file does not read a rounded value; it cannot be sharpened.")
    scale = next(tensor for tensor in graph.graph.initializer if tensor.name == last.input[1])
    value = numpy_helper.to_array(scale) / np.float32(heat)
    graph.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), SCALE))  # others may read the old
    last.input[1] = SCALE
    return serialize(graph)


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
