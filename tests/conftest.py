"""For all parts: a release small enough to be signed a thousand times; made-up traces and a recipe that learns them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from edgewright_pipelines.release import UnsignedRelease


LONGEST_FIRST = (
    "cluster/demo/test_as_a_person.py",
    "cluster/monitoring/test_site.py",
    "cluster/rollouts/in_process/test_killed_anywhere.py",
    "cluster/demo/test_as_a_script.py",
    "cluster/rollouts/processes/test_api_trouble.py",
    "cluster/rollouts/processes/test_kill_nine.py",
    "cluster/rollouts/processes/test_operator.py",
    "cluster/test_start_and_stop.py",
    "cluster/rollouts",
    "cluster/test_operator_and_agent.py",
    "cluster/test_publishing.py",
    "cluster/agent",
    "cli/test_sweep.py",
    "pipelines/test_qat.py",
    "cli/test_train_and_evaluate.py",
    "edge_agent/test_faults.py",
    "pipelines",
    "operator/test_histories.py",
    "cli",
    "edge_agent/serving",
)
"""Where files of tests begin, below this folder, those that take a minute before those that take seconds.

A file stays on one worker: a long one that began last would keep all others waiting.
"""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file that waits for clusters, then one that computes, in turn: together they keep the cores busy."""
    here = Path(__file__).parent
    begins = {here / name: number for number, name in enumerate(LONGEST_FIRST)}

    def rank(file: Path) -> int:
        return next((begins[place] for place in (file, *file.parents) if place in begins), len(begins))

    files = sorted(dict.fromkeys(item.path for item in items), key=rank)
    waiting = [file for file in files if file.is_relative_to(here / "cluster")]
    computing = [file for file in files if file not in waiting]
    turns = [file for pair in zip_longest(waiting, computing) for file in pair if file]
    place = {file: number for number, file in enumerate(turns)}
    items.sort(key=lambda item: place[item.path])


@pytest.fixture
def http_server() -> Iterator[Callable[[type[BaseHTTPRequestHandler]], str]]:
    """Start a server on loopback whose requests a handler class answers; its URL. All end with the test."""
    running: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(handler: type[BaseHTTPRequestHandler]) -> str:
        quiet = type("Quiet", (handler,), {"log_message": lambda *_: None})
        server = ThreadingHTTPServer(("127.0.0.1", 0), quiet)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="session")
def small_release() -> Callable[..., UnsignedRelease]:
    """`small_release(name, **files)`: two variants whose files are made-up bytes; `files` replaces some by path."""
    from edgewright_contract import names
    from edgewright_contract.digests import digest_of
    from edgewright_pipelines.release import UnsignedRelease

    def make(name: str = "nilm-test", files: dict[str, bytes] | None = None) -> UnsignedRelease:
        content = {
            "variants/base-fp32.onnx": b"fp32 " * 400,
            "variants/base-int8.onnx": b"int8 " * 100,
            names.GOLDEN_FILE: bytes(2 * 2 * 64),
            names.CARD_FILE: b"# card\n",
            **(files or {}),
        }
        return UnsignedRelease(name, content, _draft(name, content, digest_of, names.GOLDEN_FILE))

    return make


def _draft(name: str, files: dict[str, bytes], digest_of: Callable[[bytes], str], golden: str) -> dict[str, Any]:
    variants = [
        {
            "name": variant,
            "file": (file := f"variants/{variant}.onnx"),
            "digest": digest_of(files[file]),
            "bytes": len(files[file]),
            "precision": precision,
            "parent": parent,
            "pruning": None,
            "parameters": 1,
            "macs": 1,
            "accuracy": None,
            "latency": {"p50Microseconds": 1.0, "p95Microseconds": 2.0, "machine": "test", "runtimeVersion": "1"},
            "golden": {"answers": [[0.5, 0.5], [0.25, 0.75]], "tolerance": 0.01},
        }
        for variant, precision, parent in (("base-fp32", "fp32", None), ("base-int8", "int8", "base-fp32"))
    ]
    return {
        "schemaVersion": 1,
        "registeredModel": name,
        "labels": ["fridge", "kettle"],
        "window": {"seconds": 64, "hopSeconds": 16},
        "variants": variants,
        "golden": {"file": golden, "digest": digest_of(files[golden]), "count": 2},
        "provenance": {
            "recipeDigest": "sha256:" + "3" * 64,
            "dataDigest": "sha256:" + "4" * 64,
            "synthetic": True,
            "created": "2026-01-01T00:00:00Z",
            "runId": None,
        },
        "notAfter": None,
        "hardwareClasses": [],
    }


TINY_RECIPE = """
name = "nilm-identify"
[data]
min_days = 6
[window]
seconds = 256
hop_seconds = 256
[network]
channels = [16, 16]
kernels = [1, 3]
hidden = 16
bin_seconds = 16
[training]
steps = 150
batch = 16
[compression]
pruning = [{importance = "l2", scope = "local", ratio = 0.5}]
finetune_steps = 60
[release]
golden_windows = 8
"""


@pytest.fixture(scope="session")
def tiny_recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that trains in seconds on `tracebase_folder`."""
    file = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    file.write_text(TINY_RECIPE)
    return file


@pytest.fixture(scope="session")
def tracebase_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up traces in Tracebase's own form: for the program they are measured ones."""
    from edgewright_pipelines.data import synthetic

    folder = tmp_path_factory.mktemp("traces")
    clock = [f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}" for second in range(86_400)]
    for trace in synthetic.generate(seed=3, devices=2, days=4):
        _, appliance, name = trace.name.split("/")
        device, date = name.rsplit("_", 1)
        year, month, day = date.split("-")
        file = folder / "complete" / appliance / f"dev_{device}_{year}.{month}.{day}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = zip(clock, trace.watts.tolist(), strict=True)
        file.write_text("\n".join(f"{day}/{month}/{year} {time};{watts};{watts}" for time, watts in rows))
    return folder


@pytest.fixture(scope="session")
def runnable_release() -> Callable[[str], UnsignedRelease]:
    """`runnable_release(name)`: one variant that an agent can run, with the golden answers that it really gives."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    from edgewright_contract import release as contract
    from edgewright_pipelines import release

    window, labels = 64, ("fridge", "kettle")
    weight = np.stack([-np.ones(window), np.ones(window)], 1).astype(np.float32) / (window * 1000)
    nodes = [
        helper.make_node("Flatten", ["watts"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    watts = helper.make_tensor_value_info("watts", TensorProto.FLOAT, ["batch", 1, window])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(labels)])
    graph = helper.make_graph(nodes, "runnable", [watts], [answer], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx = bytes(model.SerializeToString())
    golden = np.stack([np.full(window, 5), np.full(window, 2000)]).astype(np.uint16)

    def make(name: str) -> UnsignedRelease:
        digest = "sha256:" + "3" * 64
        origin = release.Origin(name, digest, digest, True, datetime(2026, 1, 1, tzinfo=UTC))
        figures = release.Figures(128, 128, 1.0, 2.0, None)
        variant = release.BuiltVariant("base-fp32", onnx, contract.Precision.FP32, None, None, figures)
        size = contract.Window(seconds=window, hop_seconds=16)
        return release.build(origin, size, labels, [variant], golden, tolerance=0.01)

    return make
