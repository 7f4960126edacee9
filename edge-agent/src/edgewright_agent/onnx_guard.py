"""Between download and self-test: reads the wire format of an ONNX file and refuses what our exporter never writes.

No engine is loaded here. Refused: data outside the file, foreign or unknown operators, functions, control flow,
training graphs, sizes that the file does not hold, weights that are no numbers, and inputs that no window fits.
"""

import array
import math
import sys
from collections.abc import Callable, Iterator
from typing import Final

from edgewright_agent import protobuf_wire as wire
from edgewright_agent.protobuf_wire import Value, WireError

STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx"})
QUANTIZATION_DOMAIN: Final = "com.microsoft"
QUANTIZATION_OPERATORS: Final = frozenset(
    {"QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearSigmoid", "QLinearSoftmax", "QLinearLeakyRelu"}
    | {"QLinearAveragePool", "QLinearGlobalAveragePool", "QGemm", "QuantizeLinear", "DequantizeLinear"}
)
CONTROL_FLOW: Final = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_NETWORKS: Final = (
    "Abs Add And ArgMax AveragePool BatchNormalization Cast CastLike Ceil Clip Concat Constant ConstantOfShape "
    "Conv ConvInteger ConvTranspose CumSum DepthToSpace DequantizeLinear Div Dropout DynamicQuantizeLinear Einsum "
    "Elu Equal Erf Exp Expand Flatten Floor GRU Gather GatherElements Gelu Gemm GlobalAveragePool GlobalMaxPool "
    "Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LSTM "
    "LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization MatMul MatMulInteger Max "
    "MaxPool Mean Min Mish Mod Mul Neg Not Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear Reciprocal "
    "ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu "
    "Reshape Resize Round Selu Shape Sigmoid Sign Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze "
    "Sub Sum Tanh Tile TopK Transpose Unsqueeze Where Xor"
)
OPERATORS: Final = frozenset(_NETWORKS.split())
"""What networks on windows are made of. None reads files, keeps state, draws lots or holds a graph of its own."""
MAX_NODES: Final = 10_000
MAX_TENSORS: Final = 20_000
MAX_RANK: Final = 8
MAX_FIELDS: Final = 500_000
"""Looked at in one file, which takes half a second; ten times what so many nodes and weights have in ours."""
MAX_OPSET: Final = 26
_SPARSE: Final = "a sparse weight can be far larger than its file; only dense ones are served"

# Field numbers of onnx.proto3
_MODEL_GRAPH, _MODEL_OPSET, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 8, 20, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_SPARSE = 1, 5, 11, 12, 15
_NODE_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES = 22, 23
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_RAW = 1, 2, 4, 9
_TENSOR_NAME, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 8, 13, 14
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_TYPE_ELEMENT, _TENSOR_TYPE_SHAPE = 1, 2, 1, 1, 2
_SHAPE_DIM, _DIM_VALUE = 1, 1
_FLOAT: Final = 1
_ITEM_BITS: Final = {
    1: 32,
    2: 8,
    3: 8,
    4: 16,
    5: 16,
    6: 32,
    7: 64,
    9: 8,
    10: 16,
    11: 64,
    12: 32,
    13: 64,
    16: 16,
    21: 4,
    22: 4,
}
"""TensorProto data type → bits of an element in raw_data; strings and complex numbers have no business in a weight."""


_Fields = Callable[[memoryview], Iterator[tuple[int, Value]]]


class UnsafeModelError(ValueError):
    """The file holds something that a compressed variant has no business to hold."""


def check(model: bytes, window_seconds: int | None = None) -> None:
    """Refuse a model that is malformed, holds more than plain operators, or does not take windows (of this length).

    Raises:
        UnsafeModelError: with a sentence.
    """
    try:
        _check_model(memoryview(model), window_seconds, _bounded())
    except WireError as error:
        raise UnsafeModelError(f"not an ONNX model: {error}") from None


def _bounded() -> _Fields:
    """Reads messages of one file until it has seen too many fields."""
    left = MAX_FIELDS

    def read(data: memoryview) -> Iterator[tuple[int, Value]]:
        nonlocal left
        for found in wire.fields(data):
            left -= 1
            if left < 0:
                raise UnsafeModelError(f"the file has more than {MAX_FIELDS} fields, which no variant needs")
            yield found

    return read


def _check_model(model: memoryview, window_seconds: int | None, read: _Fields) -> None:
    graphs = []
    for field, value in read(model):
        if field == _MODEL_GRAPH:
            graphs.append(wire.message(value))
        elif field == _MODEL_OPSET:
            _check_opset(dict(read(wire.message(value))))
        elif field in (_MODEL_TRAINING, _MODEL_FUNCTIONS):
            raise UnsafeModelError("the model holds functions or a training graph; only a plain graph is served")
    if len(graphs) != 1:
        raise UnsafeModelError(f"not an ONNX model: {len(graphs)} graphs instead of one")
    _check_graph(graphs[0], window_seconds, read)


def _check_opset(opset: dict[int, Value]) -> None:
    domain, version = wire.text(opset.get(_OPSET_DOMAIN, b"")), opset.get(_OPSET_VERSION, 0)
    _check_domain(domain)
    if not isinstance(version, int) or not 1 <= version <= MAX_OPSET:
        raise UnsafeModelError(f"opset {version} of domain {domain!r} is not served")


def _check_graph(graph: memoryview, window_seconds: int | None, read: _Fields) -> None:
    nodes, tensors, inputs, outputs = 0, set[str](), list[memoryview](), 0
    for field, value in read(graph):
        if field == _GRAPH_NODE:
            nodes += 1
            _check_node(wire.message(value), read)
        elif field == _GRAPH_INITIALIZER:
            tensors.add(_check_tensor(wire.message(value), read))
        elif field == _GRAPH_SPARSE:
            raise UnsafeModelError(_SPARSE)
        elif field == _GRAPH_INPUT:
            inputs.append(wire.message(value))
        elif field == _GRAPH_OUTPUT:
            outputs += 1
        if nodes > MAX_NODES or len(tensors) > MAX_TENSORS:
            raise UnsafeModelError(f"more than {MAX_NODES} nodes or {MAX_TENSORS} weights")
    if not nodes or not outputs:
        raise UnsafeModelError(f"the graph has {nodes} nodes and {outputs} outputs; it needs some of both")
    _check_inputs(inputs, tensors, window_seconds, read)


def _check_inputs(inputs: list[memoryview], tensors: set[str], window_seconds: int | None, read: _Fields) -> None:
    named = [dict(read(value)) for value in inputs]
    fed = [value for value in named if wire.text(value.get(_VALUE_NAME, b"")) not in tensors]
    if len(fed) != 1:
        raise UnsafeModelError(f"the graph has {len(fed)} inputs; a window is all that it gets")
    _check_input(wire.message(fed[0].get(_VALUE_TYPE, memoryview(b""))), window_seconds, read)


def _check_input(kind: memoryview, window_seconds: int | None, read: _Fields) -> None:
    tensor = wire.message(dict(read(kind)).get(_TYPE_TENSOR, memoryview(b"")))
    stated = dict(read(tensor))
    if stated.get(_TENSOR_TYPE_ELEMENT) != _FLOAT:
        raise UnsafeModelError("the input must be a tensor of float32 watts")
    shape = wire.message(stated.get(_TENSOR_TYPE_SHAPE, memoryview(b"")))
    dims = [dict(read(wire.message(side))) for field, side in read(shape) if field == _SHAPE_DIM]
    sides = [dim.get(_DIM_VALUE) for dim in dims]
    if len(sides) not in (2, 3) or (window_seconds is not None and sides[-1] not in (None, window_seconds)):
        raise UnsafeModelError(f"the input has shape {sides}; the release says [batch, 1, {window_seconds}]")


def _check_node(node: memoryview, read: _Fields) -> None:
    operator = domain = ""
    for field, value in read(node):
        if field == _NODE_TYPE:
            operator = wire.text(value)
        elif field == _NODE_DOMAIN:
            domain = wire.text(value)
        elif field == _NODE_ATTRIBUTE:
            _check_attribute(wire.message(value), read)
    _check_domain(domain)
    if operator in CONTROL_FLOW:
        raise UnsafeModelError(f"operator {operator} is control flow, which no variant needs")
    allowed = QUANTIZATION_OPERATORS if domain == QUANTIZATION_DOMAIN else OPERATORS
    if operator not in allowed:
        raise UnsafeModelError(
            f"operator {domain + '.' if domain else ''}{operator} is not among those that are served"
        )


def _check_attribute(attribute: memoryview, read: _Fields) -> None:
    for field, value in read(attribute):
        if field in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
            raise UnsafeModelError("an operator holds a graph of its own, which is control flow")
        if field in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
            _check_tensor(wire.message(value), read)
        elif field in (_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES):
            raise UnsafeModelError(_SPARSE)


def _check_tensor(tensor: memoryview, read: _Fields) -> str:
    """The tensor's name, if the file holds all of it and all of it are numbers."""
    sides, kind, raw, name = list[int](), 0, None, ""
    for field, value in read(tensor):
        if field == _TENSOR_EXTERNAL or (field == _TENSOR_LOCATION and value != 0):
            raise UnsafeModelError("a tensor lies outside the file (external data), so no signature covers it")
        if field == _TENSOR_DIMS:
            sides += _sides(value)
        elif field == _TENSOR_TYPE and isinstance(value, int):
            kind = value
        elif field == _TENSOR_NAME:
            name = wire.text(value)
        elif field == _TENSOR_RAW:
            raw = wire.message(value)
        elif field == _TENSOR_FLOATS:
            _check_finite(value if isinstance(value, memoryview) else memoryview(b""))
    item = _ITEM_BITS.get(kind)
    if len(sides) > MAX_RANK:
        raise UnsafeModelError(f"weight {name!r} has {len(sides)} dimensions; {MAX_RANK} are served")
    if item is None:
        raise UnsafeModelError(f"weight {name!r} has data type {kind}, which no variant needs")
    bits = math.prod(sides) * item  # whole numbers: sides of 2^62 are no matter
    if bits > len(tensor) * 64 or (raw is not None and len(raw) != (bits + 7) // 8):
        raise UnsafeModelError(f"weight {name!r} says that it has shape {sides}, which the file does not hold")
    if kind == _FLOAT and raw is not None:
        _check_finite(raw)
    return name


def _sides(value: Value) -> list[int]:
    """Dimensions, one or packed; no more are read than a weight may have."""
    if isinstance(value, memoryview) and len(value) > MAX_RANK * wire.LONGEST_VARINT:
        raise UnsafeModelError(f"a weight has more than {MAX_RANK} dimensions")
    return wire.numbers(value)


def _check_finite(raw: memoryview) -> None:
    values = array.array("f")
    values.frombytes(raw[: len(raw) - len(raw) % 4])
    if sys.byteorder == "big":
        values.byteswap()
    if not math.isfinite(sum(values)):  # float32 cannot add up to infinity in the double that sums it
        raise UnsafeModelError("a weight is NaN or infinite, so no answer can be right")


def _check_domain(domain: str) -> None:
    if domain not in STANDARD_DOMAINS and domain != QUANTIZATION_DOMAIN:
        raise UnsafeModelError(f"operator domain {domain!r} is not served")
