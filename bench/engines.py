"""The same model on several engines, one thread each, and convolutions written as 1D or as 2D of height one.

Examples:
  python bench/engines.py                               the bench's own model of 512 values
  python bench/engines.py --model variants/x.onnx       a variant of a release
  python bench/engines.py --quick --json                three short rounds
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper

sys.path.insert(0, str(Path(__file__).resolve().parent))

from serving_peers import bench_model
from serving_peers.report import deliver, say
from serving_peers.servers import HERE, ONNX, Unavailable, environment, pin

ENGINES: Final = {
    "onnxruntime": (ONNX, "numpy"),
    "openvino": ("openvino==2026.4.1", "numpy"),
    "mnn": ("MNN", "numpy"),
    "tvm": ("apache-tvm", "onnx", "numpy", "scipy", "ml_dtypes"),
    "litert": ("ai-edge-litert==2.3.0", "onnx", "numpy"),
    "ncnn": ("ncnn==1.0.20261020", "onnx", "numpy"),
    "ncnn_2d": ("ncnn==1.0.20261020", "onnx", "numpy"),
}
TWO_FORMS: Final = ("onnxruntime", "openvino")
"""They read the file in either form; LiteRT knows 2D only, and ncnn's two forms are written from the 1D file."""
CHANNELS: Final = (8, 16, 32, 64, 88)
TOLERANCE: Final = 1e-4


def as_2d(data: bytes) -> bytes:
    """The same network with every 1D convolution as a 2D one of height 1."""
    model = onnx.load_from_string(data)
    graph, nodes = model.graph, []
    sizes = {item.name: item for item in graph.initializer}
    axis = helper.make_tensor("axis2", onnx.TensorProto.INT64, [1], [2])
    nodes.append(helper.make_node("Unsqueeze", ["watts", "axis2"], ["watts2d"]))
    for node in graph.node:
        inputs = ["watts2d" if name == "watts" else name for name in node.input]
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        if node.op_type == "Conv":
            weight = sizes[node.input[1]]
            weight.dims.insert(2, 1)
            pads = attributes["pads"]
            attributes |= {"kernel_shape": [1, *attributes["kernel_shape"]], "strides": [1, *attributes["strides"]]}
            attributes["pads"] = [0, pads[0], 0, pads[1]]
        nodes.append(helper.make_node(node.op_type, inputs, list(node.output), **attributes))
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.append(axis)
    return bytes(model.SerializeToString())


def is_1d(data: bytes) -> bool:
    """Whether the network has 1D convolutions in the form that `as_2d` knows."""
    model = onnx.load_from_string(data)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    shapes = [item.ints for node in convolutions for item in node.attribute if item.name == "kernel_shape"]
    known = {"Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm", "Softmax"}
    return bool(shapes) and all(len(shape) == 1 for shape in shapes) and {n.op_type for n in model.graph.node} <= known


class Bench:
    """Workers in environments of their own, in alternating rounds."""

    def __init__(self, folder: Path, rounds: int, seconds: float) -> None:
        self.folder, self.rounds, self.seconds = folder, rounds, seconds
        self.missing: dict[str, str] = {}

    def write(self, name: str, data: bytes, width: int) -> Path:
        """The model as a file, its width beside it."""
        path = self.folder / f"{name}.onnx"
        path.write_bytes(data)
        path.with_suffix(".width").write_text(str(width))
        return path

    def one(self, engine: str, model: Path) -> dict[str, Any]:
        """One run of one engine.

        Raises:
            Unavailable: it does not install or cannot run this model.
        """
        python = environment(ENGINES[engine], say)
        command = [*pin(0), str(python), str(HERE / "engine_worker.py"), engine, str(model), str(self.seconds)]
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TVM_NUM_THREADS": "1"}
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300)
        except subprocess.TimeoutExpired:
            raise Unavailable("took longer than 300 s") from None
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
            raise Unavailable(f"cannot run the model: {last[0][:200]}")
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return result

    def rounds_of(self, tasks: dict[str, tuple[str, Path]]) -> dict[str, dict[str, Any]]:
        """Medians over alternating rounds in random order; an engine that fails is noted and left out."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for number in range(self.rounds):
            say(f"round {number + 1} of {self.rounds}: {', '.join(tasks)}")
            for name in random.sample(list(tasks), len(tasks)):
                if name in self.missing:
                    continue
                try:
                    found[name].append(self.one(*tasks[name]))
                except Unavailable as error:
                    self.missing[name] = str(error)
        return {
            name: {
                "p50Microseconds": round(statistics.median(item["p50"] for item in values), 1),
                "p99Microseconds": round(statistics.median(item["p99"] for item in values), 1),
                "answer": values[0]["answer"],
            }
            for name, values in found.items()
            if values
        }


def engines(bench: Bench, data: bytes, width: int) -> dict[str, Any]:
    """Every engine on one model; the greatest difference of its answer to ONNX Runtime's."""
    model = bench.write("model", data, width)
    tasks = {engine.replace("_2d", ", 2D"): (engine, model) for engine in ENGINES}
    if is_1d(data):
        second = bench.write("model2d", as_2d(data), width)
        tasks |= {f"{engine}, 2D": (engine, second) for engine in TWO_FORMS}
    rows = bench.rounds_of(tasks)
    reference = np.array(rows["onnxruntime"]["answer"])
    for row in rows.values():
        answer = np.array(row.pop("answer"))
        difference = float(np.abs(answer - reference).max()) if answer.shape == reference.shape else float("inf")
        row["maxDifference"], row["same"] = float(f"{difference:.2g}"), difference <= TOLERANCE
    fastest = min(row["p50Microseconds"] for row in rows.values() if row["same"])
    ours = min(row["p50Microseconds"] for name, row in rows.items() if name.startswith("onnxruntime"))
    return {"engines": rows, "oursToFastest": round(ours / fastest, 3)}


def dimensions(bench: Bench, channels: Sequence[int]) -> dict[str, Any]:
    """1D against 2D on ONNX Runtime, by the number of channels."""
    tasks = {}
    for count in channels:
        flat = bench_model.make(count)
        tasks[f"{count} 1D"] = ("onnxruntime", bench.write(f"one{count}", flat, bench_model.WINDOW))
        tasks[f"{count} 2D"] = ("onnxruntime", bench.write(f"two{count}", as_2d(flat), bench_model.WINDOW))
    rows = bench.rounds_of(tasks)
    found = {}
    for count in channels:
        one, two = rows[f"{count} 1D"], rows[f"{count} 2D"]
        difference = float(np.abs(np.array(one["answer"]) - np.array(two["answer"])).max())
        found[str(count)] = {
            "conv1dMicroseconds": one["p50Microseconds"],
            "conv2dMicroseconds": two["p50Microseconds"],
            "gain": round(one["p50Microseconds"] / two["p50Microseconds"], 3),
            "maxDifference": float(f"{difference:.2g}"),
        }
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where ONNX Runtime itself cannot run the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three short rounds, two sizes of 1D against 2D")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--model", type=Path, help="an ONNX file with input watts [batch, 1, seconds]")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    arguments = parser.parse_args(argv)
    data, width = bench_model.make(88), bench_model.WINDOW
    if arguments.model:
        data = arguments.model.read_bytes()
        width = onnx.load_from_string(data).graph.input[0].type.tensor_type.shape.dim[2].dim_value
    with tempfile.TemporaryDirectory(prefix="edgewright-engines-") as folder:
        bench = Bench(Path(folder), 3 if arguments.quick else 5, 0.3 if arguments.quick else 1.0)
        try:
            result = engines(bench, data, width)
        except KeyError:
            print(f"bench/engines.py: ONNX Runtime {bench.missing.get('onnxruntime')}", file=sys.stderr)
            return 1
        result["conv1dAgainstConv2d"] = dimensions(bench, CHANNELS[1::2] if arguments.quick else CHANNELS)
        result["missing"] = bench.missing
    print("| engine | p50 µs | p99 µs | greatest difference |\n|---|--:|--:|--:|")
    for name, row in result["engines"].items():
        print(f"| {name} | {row['p50Microseconds']} | {row['p99Microseconds']} | {row['maxDifference']} |")
    for name, reason in result["missing"].items():
        print(f"{name}: not measured, it {reason}")
    print("\n| channels | 1D µs | 2D µs | gain |\n|--:|--:|--:|--:|")
    for count, row in result["conv1dAgainstConv2d"].items():
        print(f"| {count} | {row['conv1dMicroseconds']} | {row['conv2dMicroseconds']} | {row['gain']} |")
    if arguments.quick:
        print("Left out by --quick: two of five rounds, three of five sizes.")
    deliver(result, arguments.out, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
