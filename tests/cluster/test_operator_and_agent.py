"""A real operator process and a real agent process, which meet in the EdgeNode alone: candidates measured, a permit,
a release that drifts.

MLflow's alias and the gateway are played by one small server; nothing is played on either side of the EdgeNode.
"""

from __future__ import annotations

import http.server
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright_contract import bundle, keys, names, release, trust
from edgewright_contract.digests import digest_of
from edgewright_contract.dsse import canonical
from edgewright_local.control_plane import ControlPlane
from edgewright_local.ports import free_ports

WINDOW = 64
MODEL = "pair-test"
F1 = {"fp32": 0.90, "half": 0.89, "quarter": 0.88}
WIDTHS = {"fp32": 32, "half": 16, "quarter": 8}
DRIFTING = 4
"""Version that was validated on other readings than this node has."""


def _onnx(width: int, version: int) -> tuple[bytes, list[float]]:
    """A network with a hidden layer of `width`, and what it answers to any window: always the second label."""
    first = numpy_helper.from_array(np.zeros((WINDOW, width), dtype=np.float32), "w1")
    second = numpy_helper.from_array(np.full((width, 2), version, dtype=np.float32), "w2")
    offset = numpy_helper.from_array(np.array([-2, 2], dtype=np.float32), "b")
    nodes = [
        helper.make_node("Flatten", ["watts"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w1"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["kept"]),
        helper.make_node("Gemm", ["kept", "w2", "b"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    watts = helper.make_tensor_value_info("watts", TensorProto.FLOAT, ["batch", 1, WINDOW])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "g", [watts], [answer], [first, second, offset])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    kettle = 1 / (1 + float(np.exp(-4)))
    return bytes(model.SerializeToString()), [1 - kettle, kettle]


@dataclass
class Shelf:
    """Signed releases by version, the alias, and all blobs by digest."""

    version: int = 1
    manifests: dict[int, str] = field(default_factory=dict)
    documents: dict[int, dict[str, Any]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    url: str = ""

    def __post_init__(self) -> None:
        root, self.key, self.permit_key = keys.generate(), keys.generate(), keys.generate()
        self.root = keys.public_pem(root.public_key())
        pem = [keys.public_pem(key.public_key()).decode() for key in (self.key, self.permit_key)]
        said = trust.Trust(
            sequence=1,
            release_keys=[trust.ReleaseKey(public_key=pem[0], registered_models=[MODEL])],
            permit_keys=[trust.PermitKey(public_key=pem[1])],
        )
        self.trust = self._add(trust.sign(said, root))
        for version, variants in ((1, tuple(WIDTHS)), (2, ("fp32",)), (3, ("fp32",)), (DRIFTING, ("fp32",))):
            self._publish(version, variants)

    def _add(self, data: bytes) -> str:
        self.blobs[digest_of(data)] = data
        return digest_of(data)

    def _publish(self, version: int, variants: tuple[str, ...]) -> None:
        golden, files, rows = np.zeros((2, WINDOW), dtype="<u2").tobytes(), dict[str, bytes](), []
        for name in variants:
            data, answer = _onnx(WIDTHS[name], version)
            files[f"variants/{name}.onnx"] = data
            rows.append(_variant(name, data, answer, version))
        document = {
            "registeredModel": MODEL,
            "version": version,
            "sequence": 100 * version,
            "labels": ["off", "kettle"],
            "window": {"seconds": WINDOW, "hopSeconds": WINDOW},
            "variants": rows,
            "golden": {"digest": digest_of(golden), "count": 2},
            "provenance": {
                "recipeDigest": digest_of(b"r"),
                "dataDigest": digest_of(b"d"),
                "synthetic": True,
                "created": "2026-01-01T00:00:00Z",
            },
        }
        stated = release.Release.model_validate(document).model_dump(mode="json", by_alias=True)
        files |= {names.RELEASE_FILE: canonical(stated), names.GOLDEN_FILE: golden}
        self.documents[version] = stated
        self.manifests[version] = self._add(bundle.sign(MODEL, files, self.key))
        for data in files.values():
            self._add(data)


def _reference(version: int) -> dict[str, Any]:
    """Validated on windows of 1 to 2 kW, but version 4 on windows below 100 W."""
    few = {"edges": [100, 1000], "counts": [400, 0, 0] if version == DRIFTING else [0, 0, 400]}
    sure = {"edges": [], "counts": [400]}
    return {"windows": 400, "threshold": 0.5, "unknownRatio": 0, "confidence": sure, "meanWatts": few}


def _variant(name: str, data: bytes, answer: list[float], version: int) -> dict[str, Any]:
    accuracy = {"macroF1": F1[name], "dayMacroF1": F1[name], "accuracy": F1[name], "bce": 1, "energyError": 0}
    return {
        "name": name,
        "file": f"variants/{name}.onnx",
        "digest": digest_of(data),
        "bytes": len(data),
        "precision": "fp32" if name == "fp32" else "int8",
        "parent": None if name == "fp32" else "fp32",
        "parameters": 1,
        "macs": 1,
        "accuracy": accuracy | {"perClass": {}},
        "latency": {"p50Microseconds": WIDTHS[name], "p95Microseconds": 40, "machine": "t", "runtimeVersion": "1"},
        "golden": {"answers": [answer] * 2, "tolerance": 0.001},
        "reference": _reference(version),
    }


@pytest.fixture
def shelf(http_server: Callable[[type[http.server.BaseHTTPRequestHandler]], str]) -> Shelf:
    held = Shelf()

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, _ = urllib.parse.unquote(self.path).partition("?")
            if path.endswith("/registered-models/alias"):
                tags = [{"key": names.TAG_MANIFEST, "value": held.manifests[held.version]}]
                found = {"model_version": {"version": str(held.version), "tags": tags}}
                return self._answer(200, json.dumps(found).encode())
            data = held.blobs.get(path.removeprefix("/blobs/").replace("/", ":"))
            return self._answer(404 if data is None else 200, data or b"")

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = {"manifest": asked["manifest"], "release": held.documents[asked["version"]], "trust": held.trust}
            self._answer(200, json.dumps(body).encode())

        def _answer(self, code: int, data: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    held.url = http_server(Answers)
    return held


class Site:
    """One Node with its two processes, and the CompressedModel that is about it."""

    def __init__(self, plane: ControlPlane, shelf: Shelf, folder: Path) -> None:
        self.plane, self.shelf, self.folder = plane, shelf, folder
        self.name = f"pair-{secrets.token_hex(3)}"
        self.operator_port, self.port = free_ports(2)
        self.permit_key = folder / "permit.key"
        plane.create_node(self.name, {names.LABEL_AGENT: "true", "site": self.name})
        plane.api.create_namespace(self.name, {names.ANNOTATION_NODE_SELECTOR: f"site={self.name}"})
        (folder / "gateway-token").write_text("g")
        (folder / "root.pub").write_bytes(shelf.root)
        (folder / "api-token").write_text(plane.service_account_token(names.NAMESPACE, "agent", node=self.name))
        operator = plane.service_account_token(names.NAMESPACE, "operator")
        self.kubeconfig = plane.kubeconfig_for(operator, f"operator-{self.name}")

    def environments(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Module and variables of either process; the key file of the permits is not there yet."""
        operator = {
            "KUBECONFIG": self.kubeconfig,
            "MLFLOW_URL": self.shelf.url,
            "GATEWAY_URL": self.shelf.url,
            "GATEWAY_TOKEN_FILE": self.folder / "gateway-token",
            "PERMIT_KEY_FILE": self.permit_key,
            "POLL_SECONDS": 0.5,
            "INTERVAL": 0.5,
            "LEASE_SECONDS": 2,
            "METRICS_PORT": self.operator_port,
        }
        agent = {
            "NODE": self.name,
            "STATE_DIR": self.folder / "state",
            "API_URL": self.plane.url,
            "API_CA": self.plane.ca,
            "API_TOKEN_FILE": self.folder / "api-token",
            "GATEWAY_URL": self.shelf.url,
            "GATEWAY_TOKEN_FILE": self.folder / "gateway-token",
            "ROOT_KEY_FILE": self.folder / "root.pub",
            "PORT": self.port,
            "RETRY_SECONDS": 1,
            "FIGURES_SECONDS": 1,
        }
        yield "edgewright_operator.main", {f"EDGEWRIGHT_OPERATOR_{key}": str(it) for key, it in operator.items()}
        yield "edgewright_agent.main", {f"EDGEWRIGHT_AGENT_{key}": str(it) for key, it in agent.items()}

    def wish(self, **more: Any) -> None:
        gates = {"interval": "1s", "minSamples": 1, "p95Floor": "1h", "maxRssRatio": 100, **more}
        spec = {
            "source": {"registeredModel": MODEL, "alias": "production"},
            "selection": {"deadline": "10m"},
            "rollout": {"waves": [{"percent": 100}], "soak": "1s", "maxUnavailable": "100%", "gates": gates},
        }
        metadata = {"name": "nilm", "namespace": self.name}
        kind = {"apiVersion": names.API_VERSION, "kind": "CompressedModel", "metadata": metadata, "spec": spec}
        self.plane.apply([kind])

    def node(self) -> dict[str, Any]:
        """The EdgeNode; empty before the operator made it."""
        path = f"/apis/{names.API_VERSION}/{names.EDGE_NODES}/{self.name}"
        answer = self.plane.api.client.get(path)
        return dict(answer.json()) if answer.is_success else {}

    def said(self) -> dict[str, Any]:
        """What the agent says of the model; empty before it says anything."""
        entries = (self.node().get("status") or {}).get("models") or [{}]
        return dict(entries[0])

    def status(self) -> dict[str, Any]:
        path = f"/apis/{names.API_VERSION}/namespaces/{self.name}/{names.COMPRESSED_MODELS}/nilm"
        return dict(self.plane.api.request("GET", path).get("status") or {})

    def events(self) -> list[str]:
        found = self.plane.api.request("GET", f"/api/v1/namespaces/{self.name}/events")["items"]
        return [event["reason"] for event in found]

    def push(self, windows: int = 24) -> None:
        """Readings of the last windows: what the gates' evidence is made of; a p95 needs 20 of them."""
        now = int(time.time())
        readings = [{"t": now - age, "watts": 1500.0} for age in range(windows * WINDOW, -1, -1)]
        answer = httpx2.post(f"http://127.0.0.1:{self.port}/v1/readings", json={"readings": readings}, trust_env=False)
        assert answer.is_success, answer.text

    def promoted(self, version: int) -> bool:
        good = (self.status().get("lastGood") or {}).get("version") == version
        return good and (self.said().get("live") or {}).get("version") == version

    def log(self) -> str:
        logs = (f"{file.name}: {file.read_text()[-3000:]}" for file in sorted(self.folder.glob("*.log")))
        return f"{json.dumps(self.status())[-3000:]}\n{json.dumps(self.said())}\n" + "\n".join(logs)


@pytest.fixture
def site(control_plane: ControlPlane, guarded: list[str], shelf: Shelf, tmp_path: Path) -> Iterator[Site]:
    """Both processes run, each with the rights that it has in a cluster; the wish is there."""
    place = Site(control_plane, shelf, tmp_path)
    running = []
    for module, variables in place.environments():
        with (tmp_path / f"{module}.log").open("wb") as log:
            how: Any = {"stdout": log, "stderr": log, "env": os.environ | variables, "start_new_session": True}
            arguments = ["run"] if "agent" in module else []
            running.append(subprocess.Popen([sys.executable, "-m", module, *arguments], **how))
    place.wish()
    yield place
    for child in running:
        child.terminate()
    for child in running:
        child.wait(20)
    place.plane.api.request("DELETE", f"/api/v1/nodes/{place.name}")
    place.plane.api.request("DELETE", f"/api/v1/namespaces/{place.name}")


def _until(site: Site, probe: Callable[[], Any], seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := probe():
            return found
        time.sleep(0.2)
    return pytest.fail(f"not within {seconds} s: {site.log()}")


def test_candidates_are_measured_by_the_agent_and_a_step_back_waits_for_its_permit(site: Site, shelf: Shelf) -> None:
    live = _until(site, lambda: site.said().get("live"))
    _measured_before(site, shelf, live["variant"])
    site.push()
    _until(site, lambda: site.promoted(1))
    for version in (2, 3):
        shelf.version = version
        _until(site, lambda version=version: site.promoted(version))
    shelf.version = 1  # neither what serves nor what served before: only a permit opens this way
    _until(site, lambda: site.said().get("reason") == "Downgrade")
    assert (site.said()["state"], site.said()["live"]["version"]) == ("Rejected", 3)
    assert "PermitMissing" in site.events()
    assert "permit" not in site.node()["spec"]["models"][0]
    site.permit_key.write_bytes(keys.private_pem(shelf.permit_key))
    _until(site, lambda: site.promoted(1))
    assert site.node()["spec"]["models"][0]["permit"]


def test_a_release_that_was_validated_on_other_readings_fails_its_wave(site: Site, shelf: Shelf) -> None:
    site.wish(maxDrift=0.25, maxUnknownRatio=0.5)
    _until(site, lambda: site.said().get("live"))
    site.push(windows=50)
    _until(site, lambda: site.promoted(1))
    good = site.said()["figures"]
    assert (good["drift"], good["unknownRatio"]) == (0, 0)
    shelf.version = DRIFTING
    (failed,) = _until(site, lambda: site.status().get("quarantined"))
    assert (failed["manifest"], failed["reason"]) == (shelf.manifests[DRIFTING], "drift")
    _until(site, lambda: site.said()["live"]["version"] == 1)
    assert site.status()["lastGood"]["version"] == 1


def _measured_before(site: Site, shelf: Shelf, variant: str) -> None:
    """All three were measured by the agent; what it says is what the choice rests on, and the choice keeps its rule."""
    digests = {row["digest"]: row["name"] for row in shelf.documents[1]["variants"]}
    told = {digests[row["digest"]]: row["p50Microseconds"] for row in site.said()["benchmark"]}
    (row,) = site.status()["hardwareClasses"]
    assert told == {one["variant"]: one["p50Microseconds"] for one in row["candidates"]}
    assert told.keys() == F1.keys()
    fitting = {name: p50 for name, p50 in told.items() if p50 <= told["fp32"]}
    assert row["variant"] == variant
    assert fitting[variant] == min(fitting.values())
    assert "of 3 measured" in row["reason"]
