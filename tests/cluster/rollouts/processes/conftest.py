"""A real operator process against the real API server; MLflow, the gateway and the agents are played."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edgewright_contract import names
from edgewright_contract.timestamps import micro_time
from edgewright_local.control_plane import ControlPlane
from edgewright_local.errors import ClusterError

MERGE = {"Content-Type": "application/merge-patch+json"}
TRUST = "sha256:" + "7" * 64
NODES = 3
DIGESTS = {"f": "sha256:" + "1" * 64, "q": "sha256:" + "4" * 64}
"""Of the two variants' files, the same in every release."""
FIGURES = {"samples": 500, "effectiveSamples": 500, "p95Microseconds": 90, "agreement": 1.0}


def manifest(version: int) -> str:
    return f"sha256:{version:064x}"


def release(version: int) -> dict[str, Any]:
    variants = [
        {
            "name": name,
            "file": f"variants/{name}.onnx",
            "digest": DIGESTS[name],
            "bytes": size,
            "precision": precision,
            "parent": parent,
            "parameters": 1,
            "macs": 1,
            "accuracy": None,
            "latency": {"p50Microseconds": p50, "p95Microseconds": p50, "machine": "test", "runtimeVersion": "1"},
            "golden": {"answers": [[0.5, 0.5]], "tolerance": 0.001},
        }
        for name, size, precision, parent, p50 in (("f", 400, "fp32", None, 100), ("q", 100, "int8", "f", 50))
    ]
    return {
        "registeredModel": "nilm-test",
        "version": version,
        "sequence": 100 + version,
        "labels": ["kettle", "fridge"],
        "window": {"seconds": 64, "hopSeconds": 16},
        "variants": variants,
        "golden": {"digest": "sha256:" + "2" * 64, "count": 1},
        "provenance": {
            "recipeDigest": "sha256:" + "3" * 64,
            "dataDigest": "sha256:" + "4" * 64,
            "synthetic": True,
            "created": "2026-01-01T00:00:00Z",
        },
    }


@dataclass
class Source:
    """MLflow's alias and the gateway's answer about the version that it names."""

    url: str = ""
    version: int = 1
    tokens: set[str] = field(default_factory=set)
    logins: set[str | None] = field(default_factory=set)
    """What MLflow was shown."""
    metric: float | None = None
    """What Prometheus, at the same address, answers every query; none: it is broken."""


@pytest.fixture
def source(http_server: Callable[[type[http.server.BaseHTTPRequestHandler]], str]) -> Source:
    state = Source()

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/api/v1/query"):
                found = {"resultType": "vector", "result": [{"value": [0, str(state.metric)]}]}
                self._answer(500 if state.metric is None else 200, {"status": "success", "data": found})
                return
            state.logins.add(self.headers["Authorization"])
            path, _, query = self.path.removeprefix("/api/2.0/mlflow/").partition("?")
            asked = urllib.parse.parse_qs(query).get("version", [str(state.version)])[0]
            tags = [{"key": names.TAG_MANIFEST, "value": manifest(int(asked))}]
            found = path in ("registered-models/alias", "model-versions/get")
            self._answer(200 if found else 404, {"model_version": {"version": asked, "tags": tags}})

        def do_POST(self) -> None:
            state.tokens.add(self.headers["Authorization"])
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = {"manifest": asked["manifest"], "release": release(asked["version"]), "trust": TRUST}
            self._answer(200 if self.path == "/releases" else 404, body)

        def _answer(self, code: int, body: Any) -> None:
            data = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    state.url = http_server(Answers)
    return state


class Site:
    """One namespace, its Nodes and its CompressedModel, and what their agents would write."""

    def __init__(self, plane: ControlPlane, as_agent: Callable[[str], dict[str, str]]) -> None:
        self.as_agent, self.plane = as_agent, plane
        self.api, self.name = plane.api, f"site-{secrets.token_hex(3)}"
        self.nodes = [f"{self.name}-{index}" for index in range(NODES)]
        with contextlib.suppress(ClusterError):  # another test may have made it
            self.api.create_namespace(names.NAMESPACE)
        self.classes: dict[str, str] = {}
        """Hardware classes of nodes that are of another than amd64-test."""
        self.speeds: dict[str, dict[str, int]] = {}
        """Hardware class → variant → microseconds that its nodes measure as p50; p95 is twice that."""
        self.figures: dict[str, Any] | None = dict(FIGURES)
        """What an agent says of a release that it serves; none: nothing."""
        self.odd: dict[str, dict[str, Any]] = {}
        """Figures of nodes that differ."""
        self.api.create_namespace(self.name, {names.ANNOTATION_NODE_SELECTOR: f"site={self.name}"})
        self.uids = {
            node: plane.create_node(node, {names.LABEL_AGENT: "true", "site": self.name})["metadata"]["uid"]
            for node in self.nodes
        }

    def wish(self, rollout: dict[str, Any] | None = None, **spec: Any) -> None:
        """The CompressedModel, as `kubectl apply` writes it; what is not given is two waves of the pinned variant q."""
        waves = {"waves": [{"nodes": 1}, {"percent": 100}], "soak": "2s", "maxUnavailable": "100%"}
        source = {"registeredModel": "nilm-test", "alias": "production"}
        spec = {"source": source, "selection": {"variant": "q"}, **spec, "rollout": waves | (rollout or {})}
        metadata = {"name": "nilm", "namespace": self.name}
        self.api.apply(
            [{"apiVersion": names.API_VERSION, "kind": "CompressedModel", "metadata": metadata, "spec": spec}]
        )

    def model(self) -> dict[str, Any]:
        path = f"/apis/{names.API_VERSION}/namespaces/{self.name}/{names.COMPRESSED_MODELS}/nilm"
        return dict(self.api.request("GET", path).get("status") or {})

    def edge_nodes(self) -> dict[str, dict[str, Any]]:
        found = self.api.request("GET", f"/apis/{names.API_VERSION}/{names.EDGE_NODES}")["items"]
        return {node["metadata"]["name"]: node for node in found if node["metadata"]["name"] in self.nodes}

    def assigned(self) -> dict[str, int]:
        """Node to version, of those that have one."""
        return {
            name: node["spec"]["models"][0]["live"]["version"]
            for name, node in self.edge_nodes().items()
            if node["spec"].get("models") and "live" in node["spec"]["models"][0]
        }

    def condition(self, kind: str) -> tuple[str, str]:
        found = [entry for entry in self.model().get("conditions", []) if entry["type"] == kind]
        return (found[0]["status"], found[0]["reason"]) if found else ("", "")

    def wake(self) -> None:
        """Every agent says what it runs on, and that it is there."""
        hardware: dict[str, Any] = {"arch": "amd64", "cpu": "t", "cores": 1, "memoryBytes": 1}
        hardware |= {"agentVersion": "1", "runtimeVersion": "1"}
        for node in self.nodes:
            self._status(node, {"hardware": hardware | {"class": self.classes.get(node, "amd64-test")}})
            self._beat(node, datetime.now(UTC))

    def obey(self, refused: int = 0, only: str = "") -> None:
        """Every agent (or `only` one) goes live on what it was assigned, or rejects version `refused`."""
        for name, node in self.edge_nodes().items():
            wanted = next((row.get("live") for row in node["spec"].get("models") or []), None)
            if wanted is None or only not in ("", name):
                continue
            before = ((node.get("status") or {}).get("models") or [{}])[0]
            entry = {"name": f"{self.name}/nilm", "state": "Live", "target": wanted["manifest"]}
            entry["live"] = {key: wanted[key] for key in ("version", "manifest", "variant")}
            served = before.get("live") or entry["live"]
            entry["previous"] = before.get("previous", served) if served == entry["live"] else served
            if "benchmark" in before:
                entry["benchmark"] = before["benchmark"]
            if self.figures is not None:
                entry["figures"] = self.figures | self.odd.get(name, {})
            if wanted["version"] == refused:
                entry |= {"state": "Rejected", "reason": "SelfTestFailed", "live": before.get("live")}
            self._status(name, {"models": [entry]})

    def measure(self) -> None:
        """Every agent that is asked to benchmark says what its class measures."""
        for name, node in self.edge_nodes().items():
            asked = next((row.get("benchmark") for row in node["spec"].get("models") or []), None)
            if asked is None:
                continue
            speeds = self.speeds[self.classes.get(name, "amd64-test")]
            rows = [
                {"digest": DIGESTS[variant], "runtimeVersion": "1", "p50Microseconds": speeds[variant]}
                | {"p95Microseconds": 2 * speeds[variant], "rssBytes": 1, "at": "2026-01-01T00:00:00Z"}
                for variant in asked["variants"]
            ]
            told = (node.get("status") or {}).get("models") or [{"name": f"{self.name}/nilm", "state": "Pending"}]
            self._status(name, {"models": [told[0] | {"benchmark": rows}]})

    def sleeps(self, node: str) -> None:
        """Its last heartbeat was an hour ago."""
        self._beat(node, datetime.now(UTC) - timedelta(hours=1))

    def reach(self, selector: str | None) -> None:
        """The namespace's own selector of nodes, beside that of the CompressedModel; none: it selects no node."""
        body = {"metadata": {"annotations": {names.ANNOTATION_NODE_SELECTOR: selector}}}
        self.api.request("PATCH", f"/api/v1/namespaces/{self.name}", json=body, headers=MERGE)

    def add_node(self, node: str = "") -> str:
        """One more Node, whose agent is awake as soon as the operator has made its EdgeNode and Lease."""
        node = node or f"{self.name}-{len(self.uids)}"
        labels = {names.LABEL_AGENT: "true", "site": self.name}
        self.uids[node] = self.plane.create_node(node, labels)["metadata"]["uid"]
        self.nodes.append(node)
        return node

    def remove_node(self, node: str) -> None:
        self.api.request("DELETE", f"/api/v1/nodes/{node}")
        self.nodes.remove(node)

    def _beat(self, node: str, when: datetime) -> None:
        lease = f"/apis/coordination.k8s.io/v1/namespaces/{names.NAMESPACE}/leases/{node}"
        self.api.request("PATCH", lease, json={"spec": {"renewTime": micro_time(when)}}, headers=MERGE)

    def _status(self, node: str, status: dict[str, Any]) -> None:
        path = f"/apis/{names.API_VERSION}/{names.EDGE_NODES}/{node}/status"
        self.api.request("PATCH", path, json={"status": status}, headers=self.as_agent(node))


@pytest.fixture
def site(control_plane: ControlPlane, crds: list[str], as_agent: Callable[[str], dict[str, str]]) -> Iterator[Site]:
    place = Site(control_plane, as_agent)
    yield place
    for node in place.nodes:
        place.api.request("DELETE", f"/api/v1/nodes/{node}")
    place.api.request("DELETE", f"/api/v1/namespaces/{place.name}")


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(control_plane: ControlPlane, source: Source, tmp_path: Path) -> Iterator[Start]:
    (tmp_path / "token").write_text("of-the-operator\n")
    running: list[subprocess.Popen[bytes]] = []

    def started(kubeconfig: Path = control_plane.kubeconfig, **more: str) -> subprocess.Popen[bytes]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = {
            "KUBECONFIG": str(kubeconfig),
            "MLFLOW_URL": source.url,
            "GATEWAY_URL": source.url,
            "GATEWAY_TOKEN_FILE": str(tmp_path / "token"),
            "POLL_SECONDS": "0.5",
            "INTERVAL": "0.2",
            "LEASE_SECONDS": "2",
            "METRICS_PORT": str(port),
            **more,
        }
        environment = os.environ | {f"EDGEWRIGHT_OPERATOR_{key}": value for key, value in settings.items()}
        with (tmp_path / "operator.log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "edgewright_operator.main"], env=environment, stdout=log, stderr=log
            )
        running.append(child)
        return child

    yield started
    for child in running:
        if child.poll() is None:
            child.terminate()
        child.wait(20)


@pytest.fixture
def until(tmp_path: Path) -> Callable[..., Any]:
    def waited(probe: Callable[[], Any], seconds: float = 100) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := probe():
                return found
            time.sleep(0.1)
        return pytest.fail(f"not within {seconds} s; the operator said:\n{(tmp_path / 'operator.log').read_text()}")

    return waited


def joined(site: Site, until: Callable[..., Any], **wish: Any) -> None:
    """The operator made EdgeNodes and Leases; the agents answer; the wish is there."""
    awakened(site, until)
    site.wish(**wish)


def awakened(site: Site, until: Callable[..., Any]) -> None:
    """Every Node has its EdgeNode and its Lease, and every agent is there."""
    until(lambda: len(site.edge_nodes()) == len(site.nodes))

    def awake() -> bool:
        with contextlib.suppress(ClusterError):  # a Lease comes just after its EdgeNode
            site.wake()
            return True
        return False

    until(awake)


def finished(site: Site, until: Callable[..., Any], version: int) -> None:
    def done() -> bool:
        site.obey()
        good = (site.model().get("lastGood") or {}).get("version") == version
        return good and site.condition("Ready") == ("True", "RolledOut")

    until(done)
    assert site.assigned() == dict.fromkeys(site.nodes, version)
    status = site.model()
    counts = {"total": NODES, "live": NODES, "updating": 0, "failed": 0, "offline": 0, "neverSeen": 0}
    assert status["counts"] == counts
    assert {key: status["wave"][key] for key in ("index", "of", "size", "exposed")} == {
        "index": 1, "of": 2, "size": NODES, "exposed": NODES,
    }  # fmt: skip
    assert [(entry["version"], entry["outcome"]) for entry in status["history"]] == [(version, "Promoted")]


@pytest.fixture
def joins() -> Callable[..., None]:
    return joined


@pytest.fixture
def awakens() -> Callable[..., None]:
    return awakened


@pytest.fixture
def finishes() -> Callable[..., None]:
    return finished
