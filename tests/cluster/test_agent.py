"""A real agent process against the real API server: to Live, then kill -9 and an offline start."""

from __future__ import annotations

import http.server
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright_contract import bundle, keys, names, release, trust
from edgewright_contract.digests import digest_of
from edgewright_local.control_plane import ControlPlane

WINDOW = 64


def _onnx() -> bytes:
    weight = numpy_helper.from_array(np.zeros((WINDOW, 2), dtype=np.float32), "w")
    nodes = [
        helper.make_node("Flatten", ["watts"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    watts = helper.make_tensor_value_info("watts", TensorProto.FLOAT, ["batch", 1, WINDOW])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "g", [watts], [answer], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class Published:
    """A signed release, its trust document, and all blobs by digest."""

    def __init__(self) -> None:
        root, key = keys.generate(), keys.generate()
        self.root = keys.public_pem(root.public_key())
        model, golden = _onnx(), np.zeros((2, WINDOW), dtype="<u2").tobytes()
        body = {
            "registeredModel": "nilm-test",
            "version": 1,
            "sequence": 100,
            "labels": ["kettle", "fridge"],
            "window": {"seconds": WINDOW, "hopSeconds": 16},
            "variants": [
                {
                    "name": "fp32",
                    "file": "variants/fp32.onnx",
                    "digest": digest_of(model),
                    "bytes": len(model),
                    "precision": "fp32",
                    "parameters": 2 * WINDOW,
                    "macs": 2 * WINDOW,
                    "accuracy": None,
                    "latency": {"p50Microseconds": 1, "p95Microseconds": 1, "machine": "test", "runtimeVersion": "1"},
                    "golden": {"answers": [[0.5, 0.5], [0.5, 0.5]], "tolerance": 0.001},
                }
            ],
            "golden": {"digest": digest_of(golden), "count": 2},
            "provenance": {
                "recipeDigest": digest_of(b"r"),
                "dataDigest": digest_of(b"d"),
                "synthetic": True,
                "created": "2026-01-01T00:00:00Z",
            },
        }
        from edgewright_contract.dsse import canonical

        stated = canonical(release.Release.model_validate(body).model_dump(mode="json", by_alias=True))
        files = {names.RELEASE_FILE: stated, names.GOLDEN_FILE: golden, "variants/fp32.onnx": model}
        manifest = bundle.sign("nilm-test", files, key)
        allowed = trust.ReleaseKey(public_key=keys.public_pem(key.public_key()).decode(), registered_models=["nilm-*"])
        document = trust.sign(trust.Trust(sequence=1, release_keys=[allowed]), root)
        self.trust, self.manifest, self.model = digest_of(document), digest_of(manifest), digest_of(model)
        self.blobs = {digest_of(data).removeprefix("sha256:"): data for data in (*files.values(), manifest, document)}


@pytest.fixture
def gateway() -> Iterator[tuple[str, Published]]:
    published = Published()

    class Blobs(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = published.blobs.get(self.path.removeprefix("/blobs/sha256/"))
            self.send_response(200 if data is not None else 404)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Blobs)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", published
    server.shutdown()
    server.server_close()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[dict[str, str]], subprocess.Popen[bytes]]]:
    running: list[subprocess.Popen[bytes]] = []

    def start(environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with (tmp_path / "agent.log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "edgewright_agent.main", "run"],
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        running.append(child)
        return child

    yield start
    for child in running:
        if child.poll() is None:
            child.terminate()
        child.wait(20)


def _until(probe: Callable[[], Any], what: Callable[[], str], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = probe()
        if found:
            return found
        time.sleep(0.2)
    pytest.fail(f"not within {seconds} s: {what()}")


def _serves(port: int, manifest: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as door:
            door.settimeout(2)
            door.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: door.recv(65536), b""))
    except OSError:
        return False
    return b" 200 " in answer.split(b"\r\n")[0] + b" " and b"edgewright_model_info{" in answer


def test_to_live_then_killed_and_started_offline(
    control_plane: ControlPlane,
    guarded: list[str],  # the agent must get by with the rights that it has in a cluster
    gateway: tuple[str, Published],
    started: Callable[[dict[str, str]], subprocess.Popen[bytes]],
    tmp_path: Path,
) -> None:
    url, published = gateway
    node, api = f"node-{secrets.token_hex(3)}", control_plane.api
    control_plane.create_node(node)
    lease_object = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": node}}
    control_plane.apply([lease_object], namespace=names.NAMESPACE)  # as the operator does
    wish = {"version": 1, "sequence": 100, "manifest": published.manifest, "variant": "fp32"}
    model = {"name": "default/nilm", "registeredModel": "nilm-test", "live": wish}
    edge_node = {
        "apiVersion": names.API_VERSION,
        "kind": "EdgeNode",
        "metadata": {"name": node},
        "spec": {"trust": published.trust, "models": [model]},
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "api").write_text(control_plane.service_account_token(names.NAMESPACE, "agent", node=node))
    (tmp_path / "gateway").write_text("g")
    (tmp_path / "root.pub").write_bytes(published.root)
    settings = {
        "NODE": node,
        "STATE_DIR": str(tmp_path / "state"),
        "API_URL": control_plane.url,
        "API_CA": str(control_plane.ca),
        "API_TOKEN_FILE": str(tmp_path / "api"),
        "GATEWAY_URL": url,
        "GATEWAY_TOKEN_FILE": str(tmp_path / "gateway"),
        "ROOT_KEY_FILE": str(tmp_path / "root.pub"),
        "PORT": str(port),
        "RETRY_SECONDS": "1",
    }
    environment = {f"EDGEWRIGHT_AGENT_{name}": value for name, value in settings.items()}
    log = lambda: (tmp_path / "agent.log").read_text()[-4000:]  # noqa: E731
    path = f"/apis/{names.API_VERSION}/edgenodes/{node}"
    first = started(environment)
    api.apply([edge_node])  # after the start: the agent waits for its object

    def live() -> dict[str, Any] | None:
        status = api.request("GET", path).get("status", {})
        held = [entry for entry in status.get("models", []) if entry["state"] == "Live"]
        return status if held else None

    status = _until(live, log)
    assert status["models"][0]["live"] == {"version": 1, "manifest": published.manifest, "variant": "fp32"}
    conditions = {entry["type"]: entry["status"] for entry in status["conditions"]}
    assert conditions == {"Ready": "True", "StorageOk": "True", "TrustOk": "True"}
    assert status["hardware"]["cores"] >= 1
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{names.NAMESPACE}/leases/{node}"
    assert api.request("GET", lease)["spec"]["renewTime"]
    _until(lambda: _serves(port, published.manifest), log)

    os.killpg(first.pid, signal.SIGKILL)
    first.wait(10)
    assert not _serves(port, published.manifest)
    dead = {"EDGEWRIGHT_AGENT_API_URL": "https://127.0.0.1:1", "EDGEWRIGHT_AGENT_GATEWAY_URL": "http://127.0.0.1:1"}
    second = started({**environment, **dead})
    _until(lambda: _serves(port, published.manifest), log)
    assert second.poll() is None
