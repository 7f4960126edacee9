"""Stage `prune.shrink → export.to_onnx → quantize.to_int8`: a trained network becomes one ONNX file.

The same network gives the same bytes, wherever and whenever it is exported.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from edgewright_pipelines.fold import fold
from edgewright_pipelines.networks import Classifier
from edgewright_pipelines.session import INPUT, OUTPUT, probabilities

OPSET = 20
PRODUCER = "edgewright"
PARITY = 1e-4  # largest difference of a probability between torch and ONNX Runtime that rounding explains
EXAMPLE_BATCH = 2  # a batch of one would be taken for a constant


class ParityError(ValueError):
    """An exported file that answers other than the network it was made from."""


def to_onnx(network: Classifier, window: int, *, temperature: float = 1.0) -> bytes:
    """An ONNX file: "watts" float32 [batch, 1, window] to "probabilities" float32 [batch, classes].

    Batch norms are folded, softmax and temperature are inside, the batch stays open, nothing names this machine.
    Raises ValueError for a temperature that is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"The temperature is {temperature}; it divides the logits, so it must be above 0.")
    answering = _Answering(fold(network, temperature)).eval()
    example = torch.zeros(EXAMPLE_BATCH, 1, window)
    with _quiet():
        program = torch.onnx.export(
            answering,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=65_536)},),
            external_data=False,
            verbose=False,
        )
    assert program is not None  # noqa: S101 (for the type checker)
    return serialize(program.model_proto)


def serialize(model: onnx.ModelProto) -> bytes:
    """The model without metadata (the exporter writes source paths into it), as the same bytes for the same graph."""
    stripped = onnx.ModelProto()
    stripped.CopyFrom(model)
    for field in ("metadata_props", "doc_string", "producer_version", "domain", "functions"):
        stripped.ClearField(field)
    stripped.producer_name = PRODUCER
    _strip_graph(stripped.graph)
    _shorten(stripped.graph)
    # Operator sets of other domains stay only if a node uses them.
    used = {node.domain for node in stripped.graph.node}
    opsets = [opset for opset in stripped.opset_import if opset.domain in used or opset.domain in ("", "ai.onnx")]
    del stripped.opset_import[:]
    stripped.opset_import.extend(opsets)
    onnx.checker.check_model(stripped, full_check=True)
    return bytes(stripped.SerializeToString(deterministic=True))


def check_parity(
    network: Classifier, model: bytes, windows: npt.NDArray[Any], *, temperature: float = 1.0, limit: float = PARITY
) -> float:
    """Largest difference of a probability over `windows` [n, window]. Raises ParityError if it is above `limit`."""
    watts = np.ascontiguousarray(windows, dtype=np.float32)[:, None, :]
    with torch.no_grad():
        wanted = torch.softmax(network.eval()(torch.from_numpy(watts)) / temperature, dim=1).numpy()
    difference = np.abs(probabilities(model, windows) - wanted)
    worst = float(difference.max())
    if not worst <= limit:
        row = int(difference.max(axis=1).argmax())
        raise ParityError(
            f"The exported file differs from the network by up to {worst:.2e} (window {row} of {len(windows)}),"
            f" more than {limit:.0e}; it must not be released."
        )
    return worst


class _Answering(nn.Module):
    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, watts: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.network(watts), dim=1)


def _strip_graph(graph: onnx.GraphProto) -> None:
    graph.ClearField("value_info")
    graph.ClearField("doc_string")
    graph.ClearField("metadata_props")
    graph.ClearField("quantization_annotation")
    graph.name = PRODUCER
    values = [*graph.input, *graph.output, *graph.initializer, *graph.node]
    for value in values:
        value.ClearField("doc_string")
        value.ClearField("metadata_props")


def _shorten(graph: onnx.GraphProto) -> None:
    """Names by position: those of the exporter and the quantizer take up to a tenth of a small file."""
    kept = {value.name: value.name for value in (*graph.input, *graph.output)}
    short = dict(kept)
    for name in [tensor.name for tensor in graph.initializer] + [name for node in graph.node for name in node.output]:
        if name:
            short.setdefault(name, f"v{len(short) - len(kept)}")
    for tensor in graph.initializer:
        tensor.name = short[tensor.name]
    for index, node in enumerate(graph.node):
        node.name = f"n{index}"
        node.input[:] = [short[name] if name else "" for name in node.input]
        node.output[:] = [short[name] if name else "" for name in node.output]


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns and logs about its own insides, which a person who exports cannot change."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
