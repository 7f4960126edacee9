"""A Node of the real API server with its EdgeNode, a gateway with signed releases, and the environment of an agent."""

from __future__ import annotations

import http.server
import os
import secrets
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

from edgewright_contract import bundle, keys, names, release, trust
from edgewright_contract.digests import digest_of
from edgewright_contract.dsse import canonical
from edgewright_local.control_plane import ControlPlane

WINDOW = 64
LIMIT = 5000.0
"""Watts from which a brittle model answers NaN."""
Started = Callable[..., "subprocess.Popen[bytes]"]


def _onnx(bias: float, *, brittle: bool = False) -> bytes:
    weight = numpy_helper.from_array(np.zeros((WINDOW, 2), dtype=np.float32), "w")
    offset = numpy_helper.from_array(np.array([bias, 0], dtype=np.float32), "b")
    limit = numpy_helper.from_array(np.array([LIMIT], dtype=np.float32), "limit")
    roots = [helper.make_node("Sub", ["limit", "flat"], ["left"]), helper.make_node("Sqrt", ["left"], ["root"])]
    last = "root" if brittle else "flat"
    nodes = [
        helper.make_node("Flatten", ["watts"], ["flat"], axis=1),
        *(roots if brittle else []),
        helper.make_node("Gemm", [last, "w", "b"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    watts = helper.make_tensor_value_info("watts", TensorProto.FLOAT, ["batch", 1, WINDOW])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "g", [watts], [answer], [weight, offset, limit] if brittle else [weight, offset])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class Published:
    """Signed releases, their trust document, and all blobs by digest."""

    def __init__(self) -> None:
        root, self._key = keys.generate(), keys.generate()
        self.root = keys.public_pem(root.public_key())
        self.blobs: dict[str, bytes] = {}
        public = keys.public_pem(self._key.public_key()).decode()
        allowed = trust.ReleaseKey(public_key=public, registered_models=["nilm-*"])
        self.trust = self._add(trust.sign(trust.Trust(sequence=1, release_keys=[allowed]), root))

    def _add(self, data: bytes) -> str:
        self.blobs[digest_of(data).removeprefix("sha256:")] = data
        return digest_of(data)

    def release(self, version: int, *, brittle: bool = False) -> dict[str, Any]:
        """A new release as an assignment; a brittle one answers NaN from `LIMIT` watts."""
        model, golden = _onnx(version / 10, brittle=brittle), np.zeros((2, WINDOW), dtype="<u2").tobytes()
        first = 1 / (1 + float(np.exp(-version / 10)))
        body = {
            "registeredModel": "nilm-test",
            "version": version,
            "sequence": 100 * version,
            "labels": ["off", "kettle"],
            "window": {"seconds": WINDOW, "hopSeconds": WINDOW},
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
                    "golden": {"answers": [[first, 0.5]] * 2, "tolerance": 0.001},
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
        stated = canonical(release.Release.model_validate(body).model_dump(mode="json", by_alias=True))
        files = {names.RELEASE_FILE: stated, names.GOLDEN_FILE: golden, "variants/fp32.onnx": model}
        manifest = self._add(bundle.sign("nilm-test", files, self._key))
        for data in files.values():
            self._add(data)
        return {"version": version, "sequence": 100 * version, "manifest": manifest, "variant": "fp32"}


@pytest.fixture
def gateway(http_server: Callable[[type[http.server.BaseHTTPRequestHandler]], str]) -> tuple[str, Published]:
    published = Published()

    class Blobs(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = published.blobs.get(self.path.removeprefix("/blobs/sha256/"))
            self.send_response(200 if data is not None else 404)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

    return http_server(Blobs), published


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    running: list[subprocess.Popen[bytes]] = []

    def start(environment: dict[str, str], *command: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "agent.log").open("ab") as log:
            child = subprocess.Popen(
                list(command or (sys.executable, "-m", "edgewright_agent.main", "run")),
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


class Node:
    """A Node with its EdgeNode, and the environment of its agent."""

    def __init__(self, plane: ControlPlane, gateway: str, published: Published, folder: Path) -> None:
        self.name, self.api, self.published, self.folder = f"node-{secrets.token_hex(3)}", plane.api, published, folder
        plane.create_node(self.name)
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self.name}}
        plane.apply([lease], namespace=names.NAMESPACE)  # as the operator does
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "api").write_text(plane.service_account_token(names.NAMESPACE, "agent", node=self.name))
        (folder / "gateway").write_text("g")
        (folder / "root.pub").write_bytes(published.root)
        settings = {
            "NODE": self.name,
            "STATE_DIR": str(folder / "state"),
            "API_URL": plane.url,
            "API_CA": str(plane.ca),
            "API_TOKEN_FILE": str(folder / "api"),
            "GATEWAY_URL": gateway,
            "GATEWAY_TOKEN_FILE": str(folder / "gateway"),
            "ROOT_KEY_FILE": str(folder / "root.pub"),
            "PORT": str(self.port),
            "RETRY_SECONDS": "1",
        }
        self.environment = {f"EDGEWRIGHT_AGENT_{name}": value for name, value in settings.items()}
        dead = {"EDGEWRIGHT_AGENT_API_URL": "https://127.0.0.1:1", "EDGEWRIGHT_AGENT_GATEWAY_URL": "http://127.0.0.1:1"}
        self.offline = {**self.environment, **dead}
        self.path = f"/apis/{names.API_VERSION}/edgenodes/{self.name}"

    def assign(self, wish: dict[str, Any]) -> None:
        """As the operator does."""
        model = {"name": "default/nilm", "registeredModel": "nilm-test", "live": wish}
        spec = {"trust": self.published.trust, "models": [model]}
        kind = {"apiVersion": names.API_VERSION, "kind": "EdgeNode", "metadata": {"name": self.name}}
        self.api.apply([{**kind, "spec": spec}])

    def status(self, version: int) -> dict[str, Any] | None:
        """The status, if this version is live in it."""
        status: dict[str, Any] = self.api.request("GET", self.path).get("status", {})
        live = [entry for entry in status.get("models", []) if entry["state"] == "Live"]
        return status if live and live[0]["live"]["version"] == version else None

    def entry(self, state: str) -> dict[str, Any] | None:
        """What the status says of the model, if that is its state."""
        status: dict[str, Any] = self.api.request("GET", self.path).get("status", {})
        return next((entry for entry in status.get("models", []) if entry["state"] == state), None)

    def log(self) -> str:
        """The end of the agent's log."""
        return (self.folder / "agent.log").read_text()[-4000:]

    def serves(self) -> str | None:
        """Version that answers, if one does."""
        try:
            answer = httpx2.get(f"http://127.0.0.1:{self.port}/v2/models/nilm", timeout=2)
        except httpx2.HTTPError:
            return None
        return str(answer.json()["versions"][0]) if answer.status_code == 200 else None

    def until(self, probe: Callable[[], Any], seconds: float = 60) -> Any:
        """What the probe finds, when it finds something."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = probe()
            if found:
                return found
            time.sleep(0.2)
        pytest.fail(f"not within {seconds} s: {self.log()}")


@pytest.fixture
def node(
    control_plane: ControlPlane,
    guarded: list[str],  # the agent must get by with the rights that it has in a cluster
    gateway: tuple[str, Published],
    tmp_path: Path,
) -> Node:
    url, published = gateway
    return Node(control_plane, url, published, tmp_path)
