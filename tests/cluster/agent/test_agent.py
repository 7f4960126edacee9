"""A real agent process on the real API server: to Live, killed as it reaches each state, offline, as a service."""

from __future__ import annotations

import http.server
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
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
Started = Callable[..., "subprocess.Popen[bytes]"]


def _onnx(bias: float) -> bytes:
    weight = numpy_helper.from_array(np.zeros((WINDOW, 2), dtype=np.float32), "w")
    offset = numpy_helper.from_array(np.array([bias, 0], dtype=np.float32), "b")
    nodes = [
        helper.make_node("Flatten", ["watts"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    watts = helper.make_tensor_value_info("watts", TensorProto.FLOAT, ["batch", 1, WINDOW])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "g", [watts], [answer], [weight, offset])
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

    def release(self, version: int) -> dict[str, Any]:
        """A new release as an assignment."""
        model, golden = _onnx(version / 10), np.zeros((2, WINDOW), dtype="<u2").tobytes()
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


def _until(probe: Callable[[], Any], what: Callable[[], str], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = probe()
        if found:
            return found
        time.sleep(0.2)
    pytest.fail(f"not within {seconds} s: {what()}")


def _serves(port: int) -> str | None:
    """Version that answers, if one does."""
    try:
        answer = httpx2.get(f"http://127.0.0.1:{port}/v2/models/nilm", timeout=2)
    except httpx2.HTTPError:
        return None
    return str(answer.json()["versions"][0]) if answer.status_code == 200 else None


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

    def log(self) -> str:
        """The end of the agent's log."""
        return (self.folder / "agent.log").read_text()[-4000:]


@pytest.fixture
def node(
    control_plane: ControlPlane,
    guarded: list[str],  # the agent must get by with the rights that it has in a cluster
    gateway: tuple[str, Published],
    tmp_path: Path,
) -> Node:
    url, published = gateway
    return Node(control_plane, url, published, tmp_path)


def test_to_live_then_killed_and_started_offline(node: Node, started: Started) -> None:
    wish = node.published.release(1)
    first = started(node.environment)
    node.assign(wish)  # after the start: the agent waits for its object
    status = _until(lambda: node.status(1), node.log)
    assert status["models"][0]["live"] == {"version": 1, "manifest": wish["manifest"], "variant": "fp32"}
    conditions = {entry["type"]: entry["status"] for entry in status["conditions"]}
    assert conditions == {"Ready": "True", "StorageOk": "True", "TrustOk": "True"}
    assert status["hardware"]["cores"] >= 1
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{names.NAMESPACE}/leases/{node.name}"
    assert node.api.request("GET", lease)["spec"]["renewTime"]
    _until(lambda: _serves(node.port) == "1", node.log)

    first.kill()  # alone: its server must go with it
    first.wait(10)
    _until(lambda: _serves(node.port) is None, node.log)
    second = started(node.offline)
    _until(lambda: _serves(node.port) == "1", node.log)
    assert second.poll() is None


KILLED = """
import os, signal, sys
from edgewright_agent import events, ledger, main
state, apply = sys.argv.pop(1), ledger.Ledger.apply
def then_killed(self, name, event):
    record = apply(self, name, event)
    if record.state == state and not isinstance(event, events.Started | events.Stopped):
        os.kill(os.getpid(), signal.SIGKILL)
    return record
ledger.Ledger.apply = then_killed
sys.argv = ["edgewright-agent", "run"]
main.main()
"""


def test_killed_as_it_reaches_each_state(node: Node, started: Started) -> None:
    node.assign(node.published.release(1))
    agent = started(node.environment)
    _until(lambda: node.status(1), node.log)
    agent.terminate()
    assert agent.wait(20) == 0, "an end that was asked for is a clean one"
    for version, state in enumerate(("Pending", "Fetched", "Verified", "Tested", "Shadow", "Live"), start=2):
        node.assign(node.published.release(version))
        killed = started(node.environment, sys.executable, "-c", KILLED, state)
        assert killed.wait(60) == -signal.SIGKILL, node.log()
        again = started(node.environment)
        _until(lambda: _serves(node.port), node.log)
        assert _serves(node.port) in (str(version - 1), str(version)), state
        status = _until(lambda version=version: node.status(version), node.log)
        assert status["models"][0]["previous"]["version"] == version - 1, state
        assert _serves(node.port) == str(version), state
        again.terminate()
        again.wait(20)


@pytest.fixture
def machine() -> Iterator[Path]:
    """A root folder whose name is short: a Unix socket's path may have 107 bytes, with var/lib/edgewright in it."""
    with tempfile.TemporaryDirectory(prefix="ew-") as folder:
        yield Path(folder)


def test_the_settings_of_the_systemd_service_run_the_same_agent(node: Node, started: Started, machine: Path) -> None:
    """What `install --systemd` writes, with the folders of this test in the place of the machine's."""
    root = machine
    url = {"api": node.environment["EDGEWRIGHT_AGENT_API_URL"], "gw": node.environment["EDGEWRIGHT_AGENT_GATEWAY_URL"]}
    given = ["--node", node.name, "--api-url", url["api"], "--gateway-url", url["gw"], "--port", str(node.port)]
    given += ["--api-ca", node.environment["EDGEWRIGHT_AGENT_API_CA"], "--systemd", "--root", str(root)]
    subprocess.run([sys.executable, "-m", "edgewright_agent.main", "install", *given], check=True)
    unit = (root / "etc/systemd/system/edgewright-agent.service").read_text()
    lines = (root / "etc/edgewright/agent.env").read_text().splitlines()
    environment = {name: value for name, _, value in (line.partition("=") for line in lines)}
    for name, value in environment.items():
        if value.startswith(("/var/lib/edgewright", "/etc/edgewright")):
            environment[name] = str(root) + value
    tokens = root / "var/lib/edgewright/tokens"
    tokens.mkdir(parents=True)
    for here, there in (("api", tokens / "api"), ("gateway", tokens / "gateway")):
        there.write_text((node.folder / here).read_text())
    (root / "etc/edgewright/root.pub").write_bytes(node.published.root)
    (command,) = [line.removeprefix("ExecStart=") for line in unit.splitlines() if line.startswith("ExecStart=")]
    agent = started(environment, *command.split())
    node.assign(node.published.release(1))
    _until(lambda: node.status(1), node.log)
    agent.kill()
    agent.wait(10)
    dead = {"EDGEWRIGHT_AGENT_API_URL": "https://127.0.0.1:1", "EDGEWRIGHT_AGENT_GATEWAY_URL": "http://127.0.0.1:1"}
    started({**environment, **dead}, *command.split())
    _until(lambda: _serves(node.port) == "1", node.log)
