"""Stage `export.to_onnx → quantize.to_int8 → evaluate.measure`: FP32 becomes INT8, calibrated on real windows.

Training aware of quantization would come in before export and end here too, with its own ranges as overrides.
"""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from edgewright_pipelines.export import serialize
from edgewright_pipelines.session import INPUT

CALIBRATION_BATCH = 32


@dataclass(frozen=True, slots=True)
class Scheme:
    """How numbers are rounded.

    Unsigned activations with signed weights: on x86 they took 60 us where signed or unsigned pairs took 124 and 100.
    reduce_range: 7-bit weights, without which AVX2 processors that lack VNNI overflow and lose points; it costs 0.003
    of macro-F1 where the processor would not have needed it.
    """

    activation: QuantType = QuantType.QUInt8
    weight: QuantType = QuantType.QInt8
    reduce_range: bool = True
    operators: tuple[str, ...] = ("Conv", "Gemm", "Relu", "Clip", "MaxPool", "AveragePool", "Concat")


class QuantizationError(ValueError):
    """A file that cannot be quantized; the text says why."""


def to_int8(model: bytes, windows: npt.NDArray[Any], scheme: Scheme | None = None) -> bytes:
    """An INT8 file (QDQ, per channel) with the same input and output; ranges are taken from `windows` [n, window].

    Raises QuantizationError without windows or if nothing in the graph could be quantized.
    """
    if not len(windows):
        raise QuantizationError("Quantization needs windows to see the ranges of the activations; none were given.")
    scheme = scheme or Scheme()
    graph = onnx.load_from_string(model)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target = Path(folder) / "int8.onnx"
        _quantize(graph, target, windows, scheme)
        quantized = onnx.load(target)
    if not any(node.op_type == "QuantizeLinear" for node in quantized.graph.node):
        raise QuantizationError(f"No operator of {', '.join(scheme.operators)} was found, so nothing became INT8.")
    return serialize(quantized)


def _quantize(graph: onnx.ModelProto, target: Path, windows: npt.NDArray[Any], scheme: Scheme) -> None:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises a preprocessing that the export has already done
    try:
        quantize_static(
            graph,
            str(target),
            _Windows(windows),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(scheme.operators),
            nodes_to_exclude=_in_watts(graph.graph),
            per_channel=True,
            reduce_range=scheme.reduce_range,
            activation_type=scheme.activation,
            weight_type=scheme.weight,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"ForceQuantizeNoInputCheck": False},
        )
    finally:
        root.setLevel(level)


def _in_watts(graph: onnx.GraphProto) -> list[str]:
    """Nodes before a logarithm: their values are watts, of which 256 even levels would lose every small appliance."""
    wanted = {name for node in graph.node if node.op_type == "Log" for name in node.input}
    found = []
    for node in reversed(graph.node):  # topological order, so each node comes after all that read it
        if wanted.intersection(node.output):
            found.append(node.name)
            wanted.update(node.input)
    return found


class _Windows(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, windows: npt.NDArray[Any]) -> None:
        self.parts = self._cut(windows)

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        return next(self.parts, None)

    @staticmethod
    def _cut(windows: npt.NDArray[Any]) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
        for start in range(0, len(windows), CALIBRATION_BATCH):
            yield {INPUT: windows[start : start + CALIBRATION_BATCH].astype(np.float32)[:, None, :]}
