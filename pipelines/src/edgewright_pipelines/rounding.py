"""Inside training aware of rounding: which values of a traced network are rounded, said in torchao's words.

Ours, because torchao's X86InductorQuantizer leaves convolutions in float under training without a word, and
XNNPACKQuantizer moved to a package thirty times as large.
"""

from collections.abc import Collection

import torch
from onnxruntime.quantization import QuantType
from torch import fx

from edgewright_pipelines import pt2e
from edgewright_pipelines.narrow import MOST
from edgewright_pipelines.pt2e import QuantizationAnnotation, QuantizationSpec, Quantizer, SharedQuantizationSpec
from edgewright_pipelines.quantize import Scheme

AVERAGING = 0.05  # how fast the range of a value follows the batches
NARROWEST = 2.0**-20  # least scale, so that a value that is always 0 divides by something
ANNOTATION = "quantization_annotation"

_aten = torch.ops.aten
_LAYERS = {_aten.conv1d.default, _aten.conv2d.default, _aten.linear.default}
_ACTIVATIONS = {_aten.relu.default, _aten.clamp.default, _aten.hardtanh.default}
_POOLS = {_aten.avg_pool2d.default, _aten.avg_pool1d.default, _aten.adaptive_avg_pool2d.default}
# operators that only move numbers: one scale before and behind
_SAME = {_aten.max_pool2d.default, _aten.flatten.using_ints, _aten.reshape.default, _aten.view.default}
_JOINS = {_aten.cat.default}
_LOGARITHMS = {_aten.log.default, _aten.log1p.default}


class Rounding(Quantizer):  # type: ignore[misc]
    """Rounds every layer with the activation behind it, pools and joins after them, and nothing before a logarithm.

    narrow: names of the layers whose weights get 4 bits.
    """

    def __init__(self, scheme: Scheme, narrow: Collection[str] = ()) -> None:
        super().__init__()
        self.activation = _activation(scheme)
        self.weight = _weight(64 if scheme.reduce_range else 127)
        self.narrow, self.narrow_weight = narrow, _weight(MOST)

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Write into each node's metadata how its inputs and its output are rounded."""
        in_watts = before_logarithm(model)
        for node in model.graph.nodes:
            if node.op == "call_function" and node not in in_watts:
                self._annotate(node)
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Nothing to check here: the audit counts the layers that stayed in float in the exported file."""

    def _annotate(self, node: fx.Node) -> None:
        parts = node.all_input_nodes
        first = parts[0] if parts else node
        if node.target in _LAYERS:
            behind = next(iter(node.users))
            fused = len(node.users) == 1 and behind.target in _ACTIVATIONS
            narrow = str(parts[1].target).removesuffix(".weight") in self.narrow
            weight = self.narrow_weight if narrow else self.weight
            _mark(node, {first: self._arriving(first), parts[1]: weight}, None if fused else self.activation)
        elif node.target in _ACTIVATIONS and ANNOTATION in first.meta:
            _mark(node, {}, self.activation)
        elif node.target in _POOLS and _rounded(first):
            _mark(node, {first: self._arriving(first)}, self.activation)
        elif node.target in _SAME and _rounded(first):
            shared = SharedQuantizationSpec(first)
            _mark(node, {first: shared}, shared)
        elif node.target in _JOINS and all(_rounded(part) for part in parts):
            _mark(node, {part: self._arriving(part) for part in parts}, self.activation)

    def _arriving(self, node: fx.Node) -> QuantizationSpec | SharedQuantizationSpec:
        """One scale for a value, however many read it."""
        return SharedQuantizationSpec(node) if _rounded(node) else self.activation


def before_logarithm(model: fx.GraphModule) -> set[fx.Node]:
    """Values in watts, of which 256 even levels would lose every small appliance."""
    found: set[fx.Node] = set()
    queue = [part for node in model.graph.nodes if node.target in _LOGARITHMS for part in node.all_input_nodes]
    while queue:
        node = queue.pop()
        if node not in found:
            found.add(node)
            queue.extend(node.all_input_nodes)
    return found


def _rounded(node: fx.Node) -> bool:
    return ANNOTATION in node.meta and node.meta[ANNOTATION].output_qspec is not None


def _mark(
    node: fx.Node,
    inputs: dict[fx.Node, QuantizationSpec | SharedQuantizationSpec],
    output: QuantizationSpec | SharedQuantizationSpec | None,
) -> None:
    node.meta[ANNOTATION] = QuantizationAnnotation(input_qspec_map=inputs, output_qspec=output, _annotated=True)


def _activation(scheme: Scheme) -> QuantizationSpec:
    unsigned = scheme.activation is QuantType.QUInt8
    return QuantizationSpec(
        dtype=torch.uint8 if unsigned else torch.int8,
        quant_min=0 if unsigned else -128,
        quant_max=255 if unsigned else 127,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=pt2e.FusedMovingAvgObsFakeQuantize.with_args(
            observer=pt2e.MovingAverageMinMaxObserver, averaging_constant=AVERAGING, eps=NARROWEST
        ),
    )


def _weight(most: int) -> QuantizationSpec:
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-most,
        quant_max=most,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=pt2e.FusedMovingAvgObsFakeQuantize.with_args(
            observer=pt2e.MovingAveragePerChannelMinMaxObserver, averaging_constant=1.0, eps=NARROWEST
        ),
    )
