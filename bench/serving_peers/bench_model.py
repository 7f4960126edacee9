"""The model that every server runs: 512 values in, 32 out, and its release for the agent."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgewright_contract import release as r
from edgewright_contract.digests import digest_of

WINDOW, CLASSES = 512, 32
MANIFEST = "sha256:" + "a" * 64


def make(width: int, bias: float = 0.0) -> bytes:
    """Three convolutions of `width` channels, mean, softmax; the weights are random and always the same."""
    random = np.random.default_rng(5)
    weights: dict[str, np.ndarray] = {}
    nodes, name, channels = [], "watts", 1
    for layer in range(3):
        scale = 0.01 if layer == 0 else 1 / np.sqrt(5 * channels)
        weights[f"w{layer}"] = (random.normal(size=(width, channels, 5)) * scale).astype(np.float32)
        attributes = {"kernel_shape": [5], "strides": [2], "pads": [2, 2]}
        nodes.append(helper.make_node("Conv", [name, f"w{layer}"], [f"c{layer}"], **attributes))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        name, channels = f"r{layer}", width
    weights["head"] = (random.normal(size=(width, CLASSES)) * 0.1).astype(np.float32)
    weights["bias"] = np.eye(1, CLASSES, dtype=np.float32)[0] * np.float32(bias)
    nodes += [
        helper.make_node("GlobalAveragePool", [name], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    inputs = [helper.make_tensor_value_info("watts", TensorProto.FLOAT, ["batch", 1, WINDOW])]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", CLASSES])]
    constants = [numpy_helper.from_array(value, key) for key, value in weights.items()]
    graph = helper.make_graph(nodes, "bench", inputs, outputs, constants)
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


def write(
    folder: Path,
    data: bytes,
    version: int = 1,
    manifest: str = MANIFEST,
    *,
    golden: bytes | None = None,
    answers: list[list[float]] | None = None,
) -> dict[str, Any]:
    """Model and release.json in the folder; the control socket's load request for them, also as load.json."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = digest_of(data)
    expected = r.Golden(answers=answers or [[1 / CLASSES] * CLASSES], tolerance=0.01)
    variant = r.Variant(
        name="full",
        file="variants/full.onnx",
        digest=digest,
        bytes=len(data),
        precision=r.Precision.FP32,
        parameters=1,
        macs=1,
        accuracy=None,
        latency=r.Latency(p50_microseconds=120, p95_microseconds=200, machine="bench", runtime_version="bench"),
        golden=expected,
    )
    created = "2026-01-01T00:00:00Z"
    release = r.Release(
        registered_model="bench",
        version=version,
        sequence=version,
        labels=[f"class{index}" for index in range(CLASSES)],
        window=r.Window(seconds=WINDOW, hop_seconds=64),
        variants=[variant],
        golden=r.GoldenWindows(digest=digest_of(golden or b""), count=len(expected.answers)),
        provenance=r.Provenance(recipe_digest=MANIFEST, data_digest=MANIFEST, synthetic=True, created=created),
    )
    (folder / "full.onnx").write_bytes(data)
    (folder / "release.json").write_text(release.model_dump_json(by_alias=True, exclude_none=False))
    load = {"op": "load", "model": "bench/m", "manifest": manifest, "version": version, "variant": "full"}
    load |= {"path": str(folder / "full.onnx"), "digest": digest, "release": str(folder / "release.json")}
    (folder / "load.json").write_text(json.dumps(load))
    return load
