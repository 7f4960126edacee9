"""A whole agent, both processes, against a real API server and a plain blob server: what footprint and swap measure."""

import http.server
import os
import secrets
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx2
from serving_peers import bench_model
from serving_peers.servers import Unavailable, end

from edgewright_contract import bundle, keys, names, trust
from edgewright_contract.digests import digest_of
from edgewright_local.binaries import Binary, ensure
from edgewright_local.cluster_api import read_manifests
from edgewright_local.control_plane import ControlPlane
from edgewright_local.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
MODEL = "default/m"


class Blobs:
    """Files by digest, as the gateway gives them, without its checks."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        files = self.files

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                data = files.get(self.path.rpartition("/")[2])
                self.send_response(200 if data is not None else 404)
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                self.wfile.write(data or b"")

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def add(self, data: bytes) -> str:
        """Keep a file; its digest."""
        digest = digest_of(data)
        self.files[digest.removeprefix("sha256:")] = data
        return digest


class Site:
    """One node with its agent; releases are signed here and offered by digest."""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder, self.python, self.port = folder, python, free_ports(1)[0]
        self.node = f"node-{secrets.token_hex(3)}"
        self.plane = ControlPlane.start(folder / "plane", ensure((Binary.KUBE_APISERVER, Binary.ETCD), lambda _: None))
        self.blobs, self.process = Blobs(), None
        self._root, self._key = keys.generate(), keys.generate()
        self._prepare()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_agent()
        self.blobs.server.shutdown()
        self.blobs.server.server_close()
        self.plane.stop()

    def _prepare(self) -> None:
        plane, base = self.plane, ROOT / "deploy/k8s/base"
        plane.apply(list(read_manifests(ROOT / "deploy/k8s/crd")))
        for file in ("namespace.yaml", "rbac.yaml", "policies.yaml"):
            plane.apply(read_manifests(base / file))
        plane.create_node(self.node)
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self.node}}
        plane.apply([lease], namespace=names.NAMESPACE)
        public = keys.public_pem(self._key.public_key()).decode()
        allowed = trust.ReleaseKey(public_key=public, registered_models=["bench"])
        self.trust = self.blobs.add(trust.sign(trust.Trust(sequence=1, release_keys=[allowed]), self._root))
        token = plane.service_account_token(names.NAMESPACE, "agent", node=self.node)
        (self.folder / "api").write_text(token)
        (self.folder / "gateway").write_text("bench")
        (self.folder / "root.pub").write_bytes(keys.public_pem(self._root.public_key()))

    def publish(self, version: int, model: bytes, answers: list[list[float]]) -> dict[str, Any]:
        """Sign a release of this model; what an EdgeNode says to want it."""
        folder = self.folder / f"release{version}"
        golden = bytes(2 * bench_model.WINDOW * len(answers))  # windows of zero watts
        bench_model.write(folder, model, version, golden=golden, answers=answers)
        files = {
            names.RELEASE_FILE: (folder / "release.json").read_bytes(),
            names.GOLDEN_FILE: golden,
            "variants/full.onnx": model,
        }
        for data in files.values():
            self.blobs.add(data)
        manifest = self.blobs.add(bundle.sign("bench", files, self._key))
        return {"version": version, "sequence": version, "manifest": manifest, "variant": "full"}

    def wish(self, live: dict[str, Any]) -> None:
        """Write the EdgeNode, as the operator would."""
        model = {"name": MODEL, "registeredModel": "bench", "live": live}
        spec = {"trust": self.trust, "models": [model]}
        node = {"apiVersion": names.API_VERSION, "kind": "EdgeNode", "metadata": {"name": self.node}, "spec": spec}
        self.plane.apply([node])

    def state(self, manifest: str) -> str:
        """The state that the agent reports of this release."""
        path = f"/apis/{names.API_VERSION}/edgenodes/{self.node}"
        for entry in self.plane.api.request("GET", path).get("status", {}).get("models", []):
            if entry.get("target") == manifest or entry.get("live", {}).get("manifest") == manifest:
                return str(entry["state"])
        return ""

    def start_agent(self, **more: str) -> None:
        """Start the agent's supervisor, which starts the server; `more` are further settings."""
        settings = {
            "NODE": self.node,
            "STATE_DIR": self.folder / "state",
            "API_URL": self.plane.url,
            "API_CA": self.plane.ca,
            "API_TOKEN_FILE": self.folder / "api",
            "GATEWAY_URL": self.blobs.url,
            "GATEWAY_TOKEN_FILE": self.folder / "gateway",
            "ROOT_KEY_FILE": self.folder / "root.pub",
            "PORT": self.port,
            **more,
        }
        variables = {f"EDGEWRIGHT_AGENT_{name}": str(value) for name, value in settings.items()}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        with (self.folder / "agent.log").open("ab") as words:
            self.process = subprocess.Popen(
                [self.python, "-m", "edgewright_agent.main", "run"],
                env=kept | variables,
                stdout=words,
                stderr=words,
                start_new_session=True,
            )

    def stop_agent(self) -> None:
        """End it, if it runs."""
        if self.process is not None:
            end(self.process)
            self.process = None

    def serves(self) -> bool:
        """Whether the model answers to its readiness route."""
        try:
            return httpx2.get(f"http://127.0.0.1:{self.port}/v2/models/m/ready", trust_env=False).status_code == 200
        except httpx2.HTTPError:
            return False

    def until(self, probe: Callable[[], bool], seconds: float = 60, pause: float = 0.01) -> float:
        """Seconds until the probe holds.

        Raises:
            Unavailable: it does not within `seconds`, or the agent ended.
        """
        start = time.perf_counter()
        while not probe():
            if time.perf_counter() - start > seconds or (self.process and self.process.poll() is not None):
                words = (self.folder / "agent.log").read_text(errors="replace").strip()[-500:]
                raise Unavailable(f"the agent did not get there within {seconds:g} s: {words}")
            time.sleep(pause)
        return time.perf_counter() - start


def zero_answers(model: bytes) -> list[list[float]]:
    """What the model says of one window of zero watts: a golden answer."""
    import numpy as np
    import onnxruntime as ort

    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    answer = session.run(None, {"watts": np.zeros((1, 1, bench_model.WINDOW), np.float32)})[0]
    found: list[list[float]] = answer.tolist()
    return found
