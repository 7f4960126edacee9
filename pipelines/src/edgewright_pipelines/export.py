"""Stage `prune.shrink → export.to_onnx → quantize.to_int8`: a trained network becomes one ONNX file.

The same network gives the same bytes, wherever and whenever it is exported.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from edgewright_pipelines.fold import fold
from edgewright_pipelines.networks import Classifier
from edgewright_pipelines.session import INPUT, OUTPUT, opened

OPSET = 20
PRODUCER = "edgewright"
EXAMPLE_BATCH = 2  # a batch of one would be taken for a constant


def to_onnx(
    network: Classifier,
    window: int,
    *,
    temperature: float = 1.0,
    folded: bool = False,
    answering: Callable[[nn.Module], nn.Module] | None = None,
    outputs: tuple[str, ...] = (OUTPUT,),
) -> bytes:
    """An ONNX file: "watts" float32 [batch, 1, window] to "probabilities" float32 [batch, classes].

    Batch norms are folded (unless `folded` says that they are), softmax and temperature are inside, the batch stays
    open, nothing names this machine. answering, outputs: for a task with other answers.
    Raises ValueError for a temperature that is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"The temperature is {temperature}; it divides the logits, so it must be above 0.")
    ready = network if folded else fold(network, temperature)
    return traced((answering or Answering)(ready).eval(), window, outputs)


def traced(answering: nn.Module, window: int, outputs: tuple[str, ...] = (OUTPUT,)) -> bytes:
    """The file of a module that gives probabilities of watts [batch, 1, window] already."""
    example = torch.zeros(EXAMPLE_BATCH, 1, window)
    with _quiet():
        program = torch.onnx.export(
            answering,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(outputs),
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


def parity(
    network: Classifier,
    model: bytes,
    windows: npt.NDArray[Any],
    *,
    temperature: float = 1.0,
    answering: Callable[[nn.Module], nn.Module] | None = None,
) -> float:
    """Largest difference of an answer between torch and the file over `windows` [n, window]; nan counts as 1.

    Differences of watts, where the file gives them, are relative to the watts plus one.
    """
    watts = np.ascontiguousarray(windows, dtype=np.float32)[:, None, :]
    with torch.no_grad():
        wanted = (answering or Answering)(_Cooled(network.eval(), temperature))(torch.from_numpy(watts))
    found = opened(model).run(None, {INPUT: watts})
    worst = 0.0
    for index, (mine, theirs) in enumerate(zip(wanted if isinstance(wanted, tuple) else (wanted,), found, strict=True)):
        exact = mine.numpy()
        difference = np.abs(theirs - exact) / (1.0 if index == 0 else 1.0 + np.abs(exact))
        worst = max(worst, float(np.nan_to_num(difference, nan=1.0).max()))
    return worst


class _Cooled(nn.Module):
    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, watts: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(watts) / self.temperature
        return logits


class Answering(nn.Module):
    """Probabilities where the network gives logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, watts: torch.Tensor) -> torch.Tensor:
        """Probabilities [batch, classes] of watts [batch, 1, window]."""
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
