"""The real server process on an inherited socket with a tiny model, for all tests of the serving half."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright_contract import release as r
from edgewright_contract.digests import digest_of

WINDOW, LABELS = 64, ["idle", "kettle", "fridge"]
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def _tiny_onnx(bias: float) -> bytes:
    """Softmax of (mean watts / 1000) * [-1, 1, 0] + [bias, 0, 0]: low watts say idle, high ones kettle."""
    weights = np.stack([-np.ones(WINDOW), np.ones(WINDOW), np.zeros(WINDOW)], 1).astype(np.float32) / (WINDOW * 100)
    constants = {"w": weights, "b": np.array([bias, 0, 0], np.float32), "shape": np.array([-1, WINDOW], np.int64)}
    nodes = [
        helper.make_node("Reshape", ["watts", "shape"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("watts", TensorProto.FLOAT, ["batch", 1, WINDOW])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _write_release(folder: Path, version: int, bias: float, reference: r.Reference | None = None) -> dict[str, Any]:
    """Write model and release.json; give the load request for them."""
    folder.mkdir(exist_ok=True)
    data = _tiny_onnx(bias)
    digest = digest_of(data)
    variant = r.Variant(
        name="full",
        file="variants/full.onnx",
        digest=digest,
        bytes=len(data),
        precision=r.Precision.FP32,
        parameters=195,
        macs=192,
        accuracy=None,
        latency=r.Latency(p50_microseconds=10, p95_microseconds=20, machine="test", runtime_version="test"),
        golden=r.Golden(answers=[[0.8, 0.1, 0.1]], tolerance=0.01),
        reference=reference,
    )
    release = r.Release(
        registered_model="nilm",
        version=version,
        sequence=version,
        labels=LABELS,
        window=r.Window(seconds=WINDOW, hop_seconds=16),
        variants=[variant],
        golden=r.GoldenWindows(digest="sha256:" + "0" * 64, count=1),
        provenance=r.Provenance(recipe_digest=A, data_digest=A, synthetic=True, created="2026-01-01T00:00:00Z"),
    )
    (folder / "full.onnx").write_bytes(data)
    (folder / "release.json").write_text(release.model_dump_json(by_alias=True, exclude_none=False))
    return {
        "op": "load",
        "model": "home/nilm",
        "manifest": A if version == 1 else B,
        "version": version,
        "variant": "full",
        "path": str(folder / "full.onnx"),
        "digest": digest,
        "release": str(folder / "release.json"),
        "slot": "shadow",
    }


class Server:
    def __init__(
        self, folder: Path, *extra: str, listening: socket.socket | None = None, settings: dict[str, str] | None = None
    ) -> None:
        self.socket = listening or socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.socket.getsockname()[1]
        self.path = folder / "c.sock"
        fd = self.socket.fileno()
        command = [
            sys.executable,
            "-m",
            "edgewright_agent.serving",
            "--fd",
            str(fd),
            "--control",
            str(self.path),
            *extra,
        ]
        environment = {**os.environ, **{f"EDGEWRIGHT_AGENT_{name}": value for name, value in (settings or {}).items()}}
        self.process = subprocess.Popen(command, pass_fds=[fd], env=environment)
        deadline = time.monotonic() + 30
        while not self.path.exists():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.http = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as client, client.makefile("rwb") as file:
            client.connect(str(self.path))
            file.write(json.dumps(request).encode() + b"\n")
            file.flush()
            return json.loads(file.readline())

    def go_live(self, load: dict[str, Any]) -> None:
        assert self.ask(load) == {"ok": True}
        assert self.ask({"op": "promote", "model": load["model"], "manifest": load["manifest"]}) == {"ok": True}

    def exchange(self, request: bytes) -> bytes:
        """All that the server answers to these bytes until it closes; the client closes its half after sending."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as client:
            client.sendall(request)
            parts = []
            while part := client.recv(65536):
                parts.append(part)
        return b"".join(parts)

    def rss(self) -> int:
        """Resident bytes of the process."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096

    def close(self) -> None:
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        self.socket.close()


@pytest.fixture(scope="session")
def write_release() -> Callable[[Path, int, float], dict[str, Any]]:
    """Write model and release.json of a version into a folder; gives the load request for them."""
    return _write_release


@pytest.fixture(scope="session")
def server_class() -> type[Server]:
    """For fixtures of a wider scope than a test."""
    return Server


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start server processes; all are ended after the test."""
    running: list[Server] = []

    def start(*extra: str, **more: Any) -> Server:
        folder = tmp_path / f"server{len(running)}"
        folder.mkdir()
        running.append(Server(folder, *extra, **more))
        return running[-1]

    yield start
    for server in running:
        server.close()


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    """A server without a model."""
    return start_server()


@pytest.fixture
def served(server: Server, tmp_path: Path) -> Server:
    """A server with version 1 of home/nilm live."""
    server.go_live(_write_release(tmp_path / "one", 1, 2.0))
    return server


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """As `served`, one for all tests of a module that change nothing in it."""
    folder = tmp_path_factory.mktemp("shared")
    running = Server(folder)
    running.go_live(_write_release(folder / "one", 1, 2.0))
    yield running
    running.close()
