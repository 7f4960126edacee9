"""Stage `export.to_onnx → quantize.to_int8 → evaluate.measure`: FP32 becomes INT8, calibrated on real windows.

The other way to INT8, training aware of rounding, is `qat.to_int8`; both round by the same Scheme.
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
from edgewright_pipelines.session import INPUT, opened

CALIBRATION_BATCH = 32
LOUDEST = 99.0  # decibels of a layer without any error
_WHOLE = {onnx.TensorProto.INT8, onnx.TensorProto.INT4}
_CHAIN = {"Relu", "Clip", "QuantizeLinear", "DequantizeLinear"}


@dataclass(frozen=True, slots=True)
class Scheme:
    """How numbers are rounded: weights signed and per channel, activations per tensor; see `scheme_for`.

    reduce_range: 7-bit weights; weight_bits: 4 where the weights of a training aware of rounding have 15 levels.
    """

    activation: QuantType = QuantType.QUInt8
    weight: QuantType = QuantType.QInt8
    reduce_range: bool = True
    weight_bits: int = 8
    operators: tuple[str, ...] = ("Conv", "Gemm", "Relu", "Clip", "MaxPool", "AveragePool", "Concat")


def scheme_for(architecture: str, simd: str) -> Scheme:
    """The scheme for a processor, by its architecture (`x86_64`) and SIMD flags as `machine.described` names them.

    x86: unsigned activations, which took 60 us where signed ones took 125, and 7-bit weights where VNNI lacks, because
    there the sum of two products saturates at 16 bits. ARM: signed activations, whose sums have 32 bits.
    """
    if architecture not in ("x86_64", "AMD64"):
        return Scheme(activation=QuantType.QInt8, reduce_range=False)
    return Scheme(activation=QuantType.QUInt8, reduce_range="vnni" not in simd)


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


def in_float(model: bytes) -> tuple[str, ...]:
    """Layers whose weights are neither INT8 nor INT4, as `Conv 3` (the fourth layer), left out without a word."""
    graph = onnx.load_from_string(model).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    source = {output: node for node in graph.node for output in node.output}
    left = []
    for index, node in enumerate(layers(graph)):
        behind = source.get(node.input[1])
        if behind is None or types.get(_stored(behind.input[0], source)) not in _WHOLE:
            left.append(_named(index, node))
    return tuple(left)


def _stored(name: str, source: dict[str, onnx.NodeProto]) -> str:
    """The weight itself, through the cast behind one of 4 bits."""
    node = source.get(name)
    return node.input[0] if node is not None and node.op_type == "Cast" else name


def noise(exact: bytes, rounded: bytes, windows: npt.NDArray[Any]) -> dict[str, float]:
    """Signal-to-noise of each layer's output in decibels: the FP32 file's values against the INT8 file's.

    Both must have the same layers in the same order; errors of earlier layers count in later ones, as they do in use.
    A value is compared behind its activation, where both files hold it.
    Raises QuantizationError for files of other layers.
    """
    wanted, found = (_outputs(model, windows) for model in (exact, rounded))
    if list(wanted) != list(found):
        raise QuantizationError(f"The INT8 file has {len(found)} layers and its FP32 parent {len(wanted)}.")
    decibels = {}
    for name, signal in wanted.items():
        power, error = float(np.square(signal).sum()), float(np.square(signal - found[name]).sum())
        decibels[name] = LOUDEST if error == 0 else float(np.clip(10 * np.log10(max(power, 1e-30) / error), -99, 99))
    return decibels


def layers(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The layers with weights, each behind those that it reads; files of one network have one order, however listed."""
    weighted = {tensor.name for tensor in graph.initializer}
    weighted |= {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    return [node for node in _ordered(graph) if node.op_type in ("Conv", "Gemm") and node.input[1] in weighted]


def _ordered(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Nodes in the order in which the outputs ask for them, which a quantizer that sorts the list cannot change."""
    source = {output: index for index, node in enumerate(graph.node) for output in node.output}
    queue = [(source[value.name], False) for value in reversed(graph.output) if value.name in source]
    found: dict[int, onnx.NodeProto] = {}
    while queue:
        index, ready = queue.pop()
        if index in found:
            continue
        if ready:
            found[index] = graph.node[index]
            continue
        wanted = [source[name] for name in graph.node[index].input if name in source]
        queue += [(index, True), *((each, False) for each in reversed(wanted))]
    return list(found.values())


def _named(index: int, node: onnx.NodeProto) -> str:
    return f"{node.op_type} {index}"


def _outputs(model: bytes, windows: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float64]]:
    graph = onnx.load_from_string(model)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    values = {_named(i, node): _behind(node.output[0], readers) for i, node in enumerate(layers(graph.graph))}
    for value in values.values():
        graph.graph.output.append(onnx.ValueInfoProto(name=value))
    session = opened(graph.SerializeToString())
    feed = {INPUT: windows.astype(np.float32)[:, None, :]}
    return {name: np.asarray(session.run([value], feed)[0], dtype=np.float64) for name, value in values.items()}


def _behind(value: str, readers: dict[str, list[onnx.NodeProto]]) -> str:
    """The value after rounding and activation: the last one in the chain of single readers."""
    while len(following := readers.get(value, [])) == 1 and following[0].op_type in _CHAIN:
        value = following[0].output[0]
    return value
