"""The bench's own network in the formats of engines that read no ONNX: ncnn's text and weights, LiteRT's flatbuffer.

Written here, with the very weights of the ONNX file, because the converters of both bring PyTorch and more along. Only
the form that bench_model.make gives is known: 1D convolutions with ReLU, mean, one matrix, softmax; in both formats as
2D ones of height 1, and for ncnn as 1D ones too.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


@dataclass(frozen=True)
class Convolution:
    """One layer: weights [out, in, kernel], stride, zeros before and after."""

    weights: np.ndarray
    stride: int
    pads: tuple[int, int]


@dataclass(frozen=True)
class Network:
    """What the ONNX file holds; `head` is [classes, channels]."""

    width: int
    convolutions: list[Convolution]
    head: np.ndarray
    bias: np.ndarray


def read(path: str) -> Network:
    """The network of an ONNX file.

    Raises:
        ValueError: it has another form.
    """
    graph = onnx.load(path).graph
    kinds = [node.op_type for node in graph.node]
    layers = kinds.count("Conv")
    if kinds != ["Conv", "Relu"] * layers + ["GlobalAveragePool", "Flatten", "Gemm", "Softmax"]:
        raise ValueError("is written for the bench's own network only")
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type == "Conv":
            said = {item.name: helper.get_attribute_value(item) for item in node.attribute}
            found.append(Convolution(constants[node.input[1]], said["strides"][0], tuple(said["pads"])))
    head, bias = (constants[name] for name in graph.node[-2].input[1:])
    width = graph.input[0].type.tensor_type.shape.dim[2].dim_value
    return Network(width, found, np.ascontiguousarray(head.T), bias)


def ncnn(network: Network, *, flat: bool) -> tuple[str, bytes]:
    """Text and weights for ncnn; `flat`: with its 1D layers, input [1, width], else 2D, input [1, 1, width].

    Layer and parameter numbers: ncnn's operators page and its file format page.
    """
    layers = [f"Input watts 0 1 watts 0={network.width} 1=1" + ("" if flat else " 2=1")]
    weights, name = b"", "watts"
    for index, layer in enumerate(network.convolutions):
        out, _, kernel = layer.weights.shape
        kind = "Convolution1D" if flat else "Convolution"
        text = f"{kind} c{index} 1 1 {name} c{index} 0={out} 1={kernel} 3={layer.stride}"
        text += f" 4={layer.pads[0]} 15={layer.pads[1]} 5=0 6={layer.weights.size} 9=1"  # no offset; ReLU
        layers.append(text + ("" if flat else " 11=1 13=1 14=0 16=0"))
        weights += bytes(4) + layer.weights.astype("<f4").tobytes()  # four zeros: float32 follows
        name = f"c{index}"
    layers.append(f"{'Pooling1D' if flat else 'Pooling'} mean 1 1 {name} mean 0=1 4=1")
    layers.append(f"InnerProduct head 1 1 mean logits 0={len(network.bias)} 1=1 2={network.head.size}")
    weights += bytes(4) + network.head.astype("<f4").tobytes() + network.bias.astype("<f4").tobytes()
    layers.append("Softmax softmax 1 1 logits probabilities 0=0 1=1")
    return "\n".join(["7767517", f"{len(layers)} {len(layers)}", *layers, ""]), weights


class _LiteRt:
    """A LiteRT model in the making."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated

        self.schema: Any = schema_py_generated
        self.buffers: list[Any] = [self.schema.BufferT()]  # the first one is empty by rule
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: list[int] = []

    def tensor(self, shape: list[int], values: np.ndarray | None = None) -> int:
        """A place for numbers, or constants; its index."""
        made, kinds = self.schema.TensorT(), self.schema.TensorType
        made.shape, made.buffer, made.type = shape, 0, kinds.FLOAT32
        if values is not None:
            made.type = kinds.INT32 if values.dtype == np.int32 else kinds.FLOAT32
            held = self.schema.BufferT()
            held.data = np.frombuffer(values.tobytes(), np.uint8)
            self.buffers.append(held)
            made.buffer = len(self.buffers) - 1
        self.tensors.append(made)
        return len(self.tensors) - 1

    def add(self, name: str, options: str, inputs: list[int], shape: list[int], **said: Any) -> int:
        """An operator with its options; the index of what it gives, of this shape."""
        code = getattr(self.schema.BuiltinOperator, name)
        if code not in self.codes:
            self.codes.append(code)
        made = self.schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = self.codes.index(code), inputs, [self.tensor(shape)]
        made.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
        made.builtinOptions = getattr(self.schema, f"{options}T")()
        for key, value in said.items():
            setattr(made.builtinOptions, key, value)
        self.operators.append(made)
        return int(made.outputs[0])

    def finish(self, first: int, last: int) -> bytes:
        """The file, with its input and output."""
        import flatbuffers

        graph, model = self.schema.SubGraphT(), self.schema.ModelT()
        graph.tensors, graph.operators, graph.inputs, graph.outputs = self.tensors, self.operators, [first], [last]
        model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], self.buffers, []
        for code in self.codes:
            made = self.schema.OperatorCodeT()
            made.builtinCode, made.deprecatedBuiltinCode, made.version = code, code, 1
            model.operatorCodes.append(made)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def litert(network: Network) -> bytes:
    """A LiteRT model, input [1, 1, width], made with the schema that LiteRT's own package carries."""
    file, width = _LiteRt(), network.width
    watts, shape = file.tensor([1, 1, width]), [1, 1, width, 1]
    asked = file.tensor([4], np.array(shape, np.int32))
    now = file.add("RESHAPE", "ReshapeOptions", [watts, asked], shape, newShape=shape)
    relu, valid = file.schema.ActivationFunctionType.RELU, file.schema.Padding.VALID
    for layer in network.convolutions:
        out, into, kernel = layer.weights.shape
        pads = file.tensor([4, 2], np.array([[0, 0], [0, 0], layer.pads, [0, 0]], np.int32))
        padded = width + sum(layer.pads)
        now = file.add("PAD", "PadOptions", [now, pads], [1, 1, padded, into])
        width = (padded - kernel) // layer.stride + 1
        filters = file.tensor([out, 1, kernel, into], np.ascontiguousarray(layer.weights.transpose(0, 2, 1)))
        said = {"padding": valid, "strideW": layer.stride, "strideH": 1, "fusedActivationFunction": relu}
        said |= {"dilationWFactor": 1, "dilationHFactor": 1}
        inputs = [now, filters, file.tensor([out], np.zeros(out, np.float32))]
        now = file.add("CONV_2D", "Conv2DOptions", inputs, [1, 1, width, out], **said)
    classes, channels = network.head.shape
    axes = file.tensor([2], np.array([1, 2], np.int32))
    now = file.add("MEAN", "ReducerOptions", [now, axes], [1, channels], keepDims=False)
    inputs = [now, file.tensor([classes, channels], network.head), file.tensor([classes], network.bias)]
    now = file.add("FULLY_CONNECTED", "FullyConnectedOptions", inputs, [1, classes])
    return file.finish(watts, file.add("SOFTMAX", "SoftmaxOptions", [now], [1, classes], beta=1.0))
