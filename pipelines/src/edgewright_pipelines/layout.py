"""Inside export: convolutions along time written on one axis (Conv1d) or on two (1 x W), chosen by measurement.

ONNX Runtime has its fast layouts for two axes only, but the axis of length one is not free either. The networks are
written on two axes; this writes a file on one axis, checks that it answers alike, and keeps what is faster.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edgewright_pipelines import latency
from edgewright_pipelines.export import serialize
from edgewright_pipelines.session import probabilities

ALIKE = 1e-5  # largest difference of a probability
# The one-axis form must win clearly, in part and in microseconds: a tie decided by noise would make the same seed give
# other bytes. (Measured on a Xeon with AVX-512: FP32 85 us on two axes and 163 on one; INT8 60 on either.)
GAIN = 0.8
LEAST_MICROSECONDS = 5.0
HEIGHT = 2  # the axis of length one in [batch, channels, 1, steps]

_WINDOWED = {"Conv", "MaxPool", "AveragePool"}
_PAIRS = ("kernel_shape", "strides", "dilations")
_ROUNDING = {"QuantizeLinear", "DequantizeLinear"}
_ELEMENTWISE = {*_ROUNDING, "Relu", "Clip", "Add", "Mul", "Log", "Concat"}

Median = Callable[[dict[str, bytes]], dict[str, float]]
"""Microseconds of each file, measured side by side."""


class LayoutError(ValueError):
    """A rewritten file that answers other than the original."""


def one_axis(model: bytes) -> bytes | None:
    """The file with its convolutions and pools on one axis; None where an operator stands in between that is unknown.

    All values lose the axis of length one, from the Unsqueeze that makes it to the Flatten or Reshape that ends it.
    """
    graph = onnx.load_from_string(model)
    weights = {tensor.name: tensor for tensor in graph.graph.initializer}
    flat: set[str] = set()  # values that lost the axis; what stands before it never had it
    kept: list[onnx.NodeProto] = []
    renamed: dict[str, str] = {}
    for node in graph.graph.node:
        narrower = bool(flat.intersection(node.input))
        node.input[:] = [renamed.get(name, name) for name in node.input]
        if node.op_type == "Unsqueeze" and _axes(node, weights) == [HEIGHT]:
            renamed[node.output[0]] = node.input[0]
            flat.add(node.output[0])
            continue
        kept.append(node)
        if not narrower:
            continue
        if not (_ends(node, weights) or _narrow(node, weights)):
            return None
        if not _ends(node, weights):
            flat.update(node.output)
    if not flat:
        return None
    del graph.graph.node[:]
    graph.graph.node.extend(kept)
    _squeeze_weights(graph.graph, weights)
    _drop_unused(graph.graph)
    graph.graph.ClearField("value_info")
    return serialize(graph)


def faster(model: bytes, windows: npt.NDArray[np.uint16], median: Median | None = None) -> bytes:
    """`model` [two axes], or its one-axis form where that answers alike on `windows` [n, window] and is clearly faster.

    Raises:
        LayoutError: the rewritten file answers otherwise, which would be a mistake of the rewriting.
    """
    other = one_axis(model)
    if other is None:
        return model
    check_alike(model, other, windows)
    taken = (median or _median(windows))({"two": model, "one": other})
    wins = taken["one"] < min(GAIN * taken["two"], taken["two"] - LEAST_MICROSECONDS)
    return other if wins else model


def check_alike(model: bytes, other: bytes, windows: npt.NDArray[np.uint16], *, limit: float = ALIKE) -> float:
    """Largest difference of a probability between two files. Raises LayoutError if it is above `limit`."""
    worst = float(np.abs(probabilities(model, windows) - probabilities(other, windows)).max())
    if not worst <= limit:
        raise LayoutError(f"The one-axis form of the file differs by up to {worst:.2e}, more than {limit:.0e}.")
    return worst


def _median(windows: npt.NDArray[np.uint16]) -> Median:
    def taken(files: dict[str, bytes]) -> dict[str, float]:
        return {name: found.p50 for name, found in latency.measure(files, windows[0]).items()}

    return taken


def _axes(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> list[int]:
    held = weights.get(node.input[1]) if len(node.input) > 1 else None
    return [] if held is None else [int(axis) for axis in numpy_helper.to_array(held).ravel()]


def _ends(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> bool:
    """Whether all axes behind the batch become one here."""
    if node.op_type == "Reshape" and (shape := weights.get(node.input[1])) is not None:
        return list(shape.dims) == [2]
    return node.op_type == "Flatten" and all(attribute.i == 1 for attribute in node.attribute)


def _narrow(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> bool:
    """Take the axis out of the node's attributes; False if the operator is not known to work without."""
    if node.op_type not in _WINDOWED:
        return node.op_type in _ELEMENTWISE and _axis_stays(node)
    for attribute in list(node.attribute):
        if attribute.name in _PAIRS and len(attribute.ints) == 2:
            _replace(node, attribute, list(attribute.ints)[1:])
        elif attribute.name == "pads" and len(attribute.ints) == 4:
            top, left, bottom, right = attribute.ints
            if top or bottom:
                return False
            _replace(node, attribute, [left, right])
    return True


def _axis_stays(node: onnx.NodeProto) -> bool:
    """Concat joins channels, in front of the axis that goes; a scale for each channel stands there too."""
    axes = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
    return node.op_type in _ROUNDING or axes in ([], [1])


def _replace(node: onnx.NodeProto, old: onnx.AttributeProto, values: list[int]) -> None:
    name = old.name
    node.attribute.remove(old)
    node.attribute.append(helper.make_attribute(name, values))


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _squeeze_weights(graph: onnx.GraphProto, weights: dict[str, onnx.TensorProto]) -> None:
    source = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        behind = source.get(node.input[1])
        name = behind.input[0] if behind is not None else node.input[1]
        values = numpy_helper.to_array(weights[name])
        if values.ndim == 4:
            weights[name].CopyFrom(numpy_helper.from_array(np.squeeze(values, HEIGHT), name))
