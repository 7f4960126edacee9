"""Last step of `qat.to_int8` with weights of 4 bits: two of them share a byte of the file.

ONNX Runtime unpacks them once, when it loads the file: behind the cast stands a constant, which it folds, and what runs
is the same INT8 arithmetic at the same speed.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgewright_pipelines.export import serialize

OPSET = 21  # the first with 4-bit integers
IR = 10  # likewise
LOWEST, HIGHEST = -8, 7
_WINDOWED: dict[str, bytes | int] = {"auto_pad": b"NOTSET", "dilations": 1, "strides": 1, "pads": 0}
_DEFAULTS: dict[str, dict[str, bytes | int]] = {
    "Conv": {**_WINDOWED, "group": 1},
    "MaxPool": {**_WINDOWED, "ceil_mode": 0, "storage_order": 0},
    "AveragePool": {**_WINDOWED, "ceil_mode": 0, "count_include_pad": 0},
}
"""What an attribute of an operator is where it is left out (onnx/docs/Operators.md)."""
LEAST = 256  # weights in a layer; below that the cast takes more bytes than the packing saves


def packed(model: bytes) -> bytes:
    """The file with every INT8 weight whose values fit into 4 bits stored so; its answers stay what they are."""
    graph = onnx.load_from_string(model)
    weights = {tensor.name: tensor for tensor in graph.graph.initializer}
    casts = []
    for node in graph.graph.node:
        held = weights.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if held is None or not _fits(held):
            continue
        casts.append(helper.make_node("Cast", [held.name], [f"{held.name}_int8"], to=TensorProto.INT8))
        node.input[0] = casts[-1].output[0]
        held.CopyFrom(_halved(held))
    if not casts:
        return model
    nodes = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend([*casts, *nodes])
    for opset in graph.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = max(opset.version, OPSET)
    graph.ir_version = max(graph.ir_version, IR)
    bare = onnx.load_from_string(serialize(graph))
    for node in bare.graph.node:
        _strip(node)
    return bytes(bare.SerializeToString(deterministic=True))


def _strip(node: onnx.NodeProto) -> None:
    """Take out what says only what holds without it: 3 KB, which count in a file of 60."""
    node.ClearField("name")
    defaults = _DEFAULTS.get(node.op_type, {})
    for attribute in list(node.attribute):
        value = helper.get_attribute_value(attribute)
        values = set(value) if isinstance(value, list) else {value}
        if attribute.name in defaults and values == {defaults[attribute.name]}:
            node.attribute.remove(attribute)


def _fits(held: TensorProto) -> bool:
    if held.data_type != TensorProto.INT8 or np.prod(held.dims) < LEAST:
        return False
    values = numpy_helper.to_array(held)
    return bool(values.min() >= LOWEST and values.max() <= HIGHEST)


def _halved(held: TensorProto) -> TensorProto:
    """The first of two neighbors in the lower half of a byte, as ONNX lays INT4 down; a last lone one beside 0."""
    values = numpy_helper.to_array(held).ravel() & 0x0F
    pairs = np.append(values, np.zeros(len(values) % 2, dtype=values.dtype)).reshape(-1, 2).astype(np.uint8)
    found = TensorProto(name=held.name, data_type=TensorProto.INT4, dims=held.dims)
    found.raw_data = (pairs[:, 0] | pairs[:, 1] << 4).tobytes()
    return found
