"""Beside `quantize`: INT8 weights with ranges of activations found at run time, as the published study also tried."""

import logging
import tempfile
import warnings
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from edgewright_pipelines.export import serialize


def to_int8(model: bytes) -> bytes:
    """The file with dynamic INT8 in every layer that ONNX Runtime can do so; needs no windows."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises a preprocessing that the export has already done
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target = Path(folder) / "int8.onnx"
            # unsigned weights: ONNX Runtime's ConvInteger exists for these only
            quantize_dynamic(onnx.load_from_string(model), target, weight_type=QuantType.QUInt8)
            return serialize(onnx.load(target))
    finally:
        root.setLevel(level)
