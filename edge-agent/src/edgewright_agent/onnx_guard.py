"""Between download and self-test: reads the wire format of an ONNX file and refuses what our exporter never writes.

No engine is loaded here. Refused: data outside the file, foreign operators, functions, control flow, training graphs.
"""

from collections.abc import Iterator
from typing import Final

STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx"})
QUANTIZATION_DOMAIN: Final = "com.microsoft"
QUANTIZATION_OPERATORS: Final = frozenset(
    {"QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearSigmoid", "QLinearSoftmax", "QLinearLeakyRelu"}
    | {"QLinearAveragePool", "QLinearGlobalAveragePool", "QGemm", "QuantizeLinear", "DequantizeLinear"}
)
CONTROL_FLOW: Final = frozenset({"If", "Loop", "Scan", "SequenceMap"})
MAX_NODES: Final = 10_000

# Field numbers of onnx.proto3
_MODEL_GRAPH, _MODEL_OPSET, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 8, 20, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES = 22, 23
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14
_SPARSE_VALUES, _SPARSE_INDICES = 1, 2
_OPSET_DOMAIN = 1
_VARINT, _I64, _BYTES, _I32 = 0, 1, 2, 5


class UnsafeModelError(ValueError):
    """The file holds something that a compressed variant has no business to hold."""


def check(model: bytes) -> None:
    """Refuse a model that is malformed or holds more than plain standard operators.

    Raises:
        UnsafeModelError: with a sentence.
    """
    graphs = 0
    for field, value in _fields(memoryview(model)):
        if field == _MODEL_GRAPH:
            graphs += 1
            _check_graph(_message(value))
        elif field == _MODEL_OPSET:
            _check_domain(_text(dict(_fields(_message(value))).get(_OPSET_DOMAIN, b"")))
        elif field in (_MODEL_TRAINING, _MODEL_FUNCTIONS):
            raise UnsafeModelError("the model holds functions or a training graph; only a plain graph is served")
    if graphs != 1:
        raise UnsafeModelError(f"not an ONNX model: {graphs} graphs instead of one")


def _check_graph(graph: memoryview) -> None:
    nodes = 0
    for field, value in _fields(graph):
        if field == _GRAPH_NODE:
            nodes += 1
            _check_node(_message(value))
        elif field == _GRAPH_INITIALIZER:
            _check_tensor(_message(value))
        elif field == _GRAPH_SPARSE:
            _check_sparse(_message(value))
    if not 1 <= nodes <= MAX_NODES:
        raise UnsafeModelError(f"the graph has {nodes} nodes; 1 to {MAX_NODES} are served")


def _check_node(node: memoryview) -> None:
    operator = domain = ""
    for field, value in _fields(node):
        if field == _NODE_TYPE:
            operator = _text(value)
        elif field == _NODE_DOMAIN:
            domain = _text(value)
        elif field == _NODE_ATTRIBUTE:
            _check_attribute(_message(value))
    _check_domain(domain)
    if domain == QUANTIZATION_DOMAIN and operator not in QUANTIZATION_OPERATORS:
        raise UnsafeModelError(f"operator {domain}.{operator} is not among the quantization operators that are served")
    if operator in CONTROL_FLOW:
        raise UnsafeModelError(f"operator {operator} is control flow, which no variant needs")


def _check_attribute(attribute: memoryview) -> None:
    for field, value in _fields(attribute):
        if field in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
            raise UnsafeModelError("an operator holds a graph of its own, which is control flow")
        if field in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
            _check_tensor(_message(value))
        elif field in (_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES):
            _check_sparse(_message(value))


def _check_sparse(tensor: memoryview) -> None:
    for field, value in _fields(tensor):
        if field in (_SPARSE_VALUES, _SPARSE_INDICES):
            _check_tensor(_message(value))


def _check_tensor(tensor: memoryview) -> None:
    for field, value in _fields(tensor):
        if field == _TENSOR_EXTERNAL or (field == _TENSOR_LOCATION and value != 0):
            raise UnsafeModelError("a tensor lies outside the file (external data), so no signature covers it")


def _check_domain(domain: str) -> None:
    if domain not in STANDARD_DOMAINS and domain != QUANTIZATION_DOMAIN:
        raise UnsafeModelError(f"operator domain {domain!r} is not served")


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field number and value of each field of one protobuf message."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        field, kind = key >> 3, key & 7
        if kind == _VARINT:
            number, at = _varint(data, at)
            yield field, number
        elif kind in (_BYTES, _I64, _I32):
            size = {_I64: 8, _I32: 4}.get(kind)
            if size is None:
                size, at = _varint(data, at)
            if at + size > end:
                raise UnsafeModelError("not an ONNX model: a field is longer than its message")
            yield field, data[at : at + size]
            at += size
        else:
            raise UnsafeModelError(f"not an ONNX model: wire type {kind}")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
    raise UnsafeModelError("not an ONNX model: a number does not end")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise UnsafeModelError("not an ONNX model: a number where a message belongs")
    return value


def _text(value: int | memoryview | bytes) -> str:
    if isinstance(value, int):
        raise UnsafeModelError("not an ONNX model: a number where a name belongs")
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        raise UnsafeModelError("not an ONNX model: a name is not UTF-8") from None
