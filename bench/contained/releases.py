"""Releases for real agents: one that is good, and six that are bad each in its own way. All pass every check at rest.

What an ONNX file cannot do by itself is done to the process that serves it (`Fault.CRASHING`) or is brought out by the
readings that it gets (`Fault.NAN`, `Fault.DRIFTING`): until then it answers as well as the good one.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from contained.fault import Fault
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgewright_contract import release as contract
from edgewright_pipelines import release
from edgewright_pipelines.reference import histogram
from edgewright_pipelines.release import UnsignedRelease
from edgewright_pipelines.session import probabilities

WINDOW: Final = 64
"""Seconds, and values of one window."""
USUAL: Final = (5.0, 1500.0)
"""Watts of the windows that every node gets by turns."""
STRANGE_WATTS: Final = 6000.0
"""More than any window has until it is wanted."""
LIMIT_WATTS: Final = 5000.0
_CHANNELS: Final = 128
_LAYERS: Final = 8
_BALLAST: Final = 60 * 2**20
_LABELS: Final = ("fridge", "kettle")


def built(name: str, fault: Fault | None) -> UnsignedRelease:
    """A release of the registered model `name`; with `fault` one that will show it."""
    onnx = _graph(fault)
    digest = "sha256:" + "3" * 64
    origin = release.Origin(name, digest, digest, True, datetime(2026, 1, 1, tzinfo=UTC))
    figures = release.Figures(128, 128, 1.0, 2.0, None)
    variant = release.BuiltVariant("base-fp32", onnx, contract.Precision.FP32, None, None, figures, _reference(onnx))
    golden = np.stack([np.full(WINDOW, watts) for watts in (*USUAL, 2000)]).astype(np.uint16)
    size = contract.Window(seconds=WINDOW, hop_seconds=16)
    return release.build(origin, size, _LABELS, [variant], golden, tolerance=0.01)


def _reference(onnx: bytes) -> contract.Reference:
    """What the usual windows answer, so that others show as drift."""
    watts = np.stack([np.full(WINDOW, value) for value in USUAL * 100]).astype(np.uint16)
    found = histogram(probabilities(onnx, watts).max(axis=1), apart=0.01, most=1.0)
    means = histogram(watts.mean(axis=1), apart=1.0)
    return contract.Reference(windows=len(watts), threshold=0.0, unknown_ratio=0.0, confidence=found, mean_watts=means)


def _graph(fault: Fault | None) -> bytes:
    """Mean power against a threshold, softmax; `extra` is 0 and changes nothing but what it costs to know that."""
    sign = -1.0 if fault is Fault.WRONG else 1.0
    weights = {"w": (sign * np.stack([-np.ones(WINDOW), np.ones(WINDOW)], 1) / WINDOW / 1000).astype(np.float32)}
    first, extra = "watts", []
    if fault is Fault.NAN:
        weights["limit"] = np.array([LIMIT_WATTS], np.float32)
        extra = [
            helper.make_node("Sub", ["limit", "watts"], ["left"]),
            helper.make_node("Sqrt", ["left"], ["root"]),
            helper.make_node("Mul", ["root", "root"], ["square"]),
            helper.make_node("Sub", ["limit", "square"], ["same"]),
        ]
        first = "same"
    nodes = [
        *extra,
        helper.make_node("Flatten", [first], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["seen"]),
        *_cost(fault, weights),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    return _serialized(nodes, weights)


def _cost(fault: Fault | None, weights: dict[str, Any]) -> Sequence[NodeProto]:
    """From `seen` to `logits`: nothing, half a billion multiplications, or ballast that stays in memory."""
    if fault is Fault.SLOW:
        random = np.random.default_rng(1)
        weights["w-in"] = random.normal(size=(_CHANNELS, 1, 5)).astype(np.float32)
        weights["w-deep"] = (random.normal(size=(_CHANNELS, _CHANNELS, 5)) / _CHANNELS).astype(np.float32)
        shape = {"kernel_shape": [5], "pads": [2, 2]}
        nodes = [helper.make_node("Conv", ["watts", "w-in"], ["c0"], **shape)]
        nodes += [
            helper.make_node("Conv", [f"c{index}", "w-deep"], [f"c{index + 1}"], **shape) for index in range(_LAYERS)
        ]
        nodes.append(helper.make_node("ReduceMax", [f"c{_LAYERS}", "axes"], ["most"], keepdims=0))
        weights["axes"] = np.array([1, 2], np.int64)
    elif fault is Fault.MEMORY:
        weights["ballast"] = np.random.default_rng(1).random((_BALLAST // 4 // 1024, 1024), np.float32)
        weights["axes"] = np.array([1, 2], np.int64)
        weights["row"] = np.array([7], np.int64)
        nodes = [
            helper.make_node("ReduceMax", ["watts", "axes"], ["top"], keepdims=0),
            helper.make_node("Cast", ["top"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Mod", ["whole", "row"], ["rows"]),
            helper.make_node("Gather", ["ballast", "rows"], ["picked"], axis=0),
            helper.make_node("ReduceMax", ["picked", "axis"], ["most"], keepdims=0),
        ]
        weights["axis"] = np.array([1], np.int64)
    else:
        return [helper.make_node("Identity", ["seen"], ["logits"])]
    weights["zero"], weights["column"] = np.zeros(1, np.float32), np.array([1], np.int64)
    return [
        *nodes,
        helper.make_node("Mul", ["most", "zero"], ["nothing"]),
        helper.make_node("Unsqueeze", ["nothing", "column"], ["beside"]),
        helper.make_node("Add", ["seen", "beside"], ["logits"]),
    ]


def _serialized(nodes: Sequence[NodeProto], weights: dict[str, Any]) -> bytes:
    watts = helper.make_tensor_value_info("watts", TensorProto.FLOAT, ["batch", 1, WINDOW])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(_LABELS)])
    constants = [numpy_helper.from_array(value, key) for key, value in weights.items()]
    graph = helper.make_graph(list(nodes), "contained", [watts], [answer], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())
