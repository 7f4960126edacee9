"""Inside evaluation: what a graph costs on paper, read from the exported file itself."""

from dataclasses import dataclass

import numpy as np
import onnx

_WEIGHTED = {"Conv": 1, "Gemm": 1, "MatMul": 1}  # operator -> input that holds the weight


@dataclass(frozen=True, slots=True)
class Costs:
    """parameters: numbers in the weights and biases of layers; macs: multiply-adds for one window."""

    parameters: int
    macs: int


def costs(model: bytes) -> Costs:
    """Count layers (Conv, Gemm, MatMul) of an FP32 or QDQ file for a batch of one."""
    graph = onnx.load_from_string(model)
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    shapes = _shapes(onnx.shape_inference.infer_shapes(graph).graph)
    source = {output: node for node in graph.graph.node for output in node.output}
    sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer}
    parameters, macs = 0, 0
    for node in graph.graph.node:
        if node.op_type not in _WEIGHTED:
            continue
        held = [_held(name, source, sizes) for name in node.input[1:]]
        weight = held[0]
        if weight is None:
            continue
        parameters += sum(int(np.prod(shape)) for shape in held if shape is not None)
        macs += _macs(node, weight, shapes[node.output[0]])
    return Costs(parameters, macs)


def _macs(node: onnx.NodeProto, weight: tuple[int, ...], output: tuple[int, ...]) -> int:
    if node.op_type == "Conv":
        return int(np.prod(weight)) * int(np.prod(output[2:]))
    return int(np.prod(weight)) * int(np.prod(output[:-1]))


def _held(name: str, source: dict[str, onnx.NodeProto], sizes: dict[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    """Shape of the constant behind `name`, through DequantizeLinear and the Cast before it."""
    while name not in sizes:
        node = source.get(name)
        if node is None or node.op_type not in ("DequantizeLinear", "Cast"):
            return None
        name = node.input[0]
    return sizes[name]


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    values = [*graph.value_info, *graph.output]
    return {value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in values}
