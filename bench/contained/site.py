"""A real site for bad releases: API server, MLflow, gateway, operator and agents, all processes of their own."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
from contained import releases
from contained.fault import Fault

from edgewright_contract import names
from edgewright_local import fleet, platform
from edgewright_local.binaries import Binary, ensure
from edgewright_local.cluster_api import read_manifests
from edgewright_local.control_plane import ControlPlane
from edgewright_local.mlflow_server import MlflowServer
from edgewright_local.platform import Part
from edgewright_pipelines import publish, registry, signing_keys
from edgewright_pipelines.signing_keys import Role

NODES: Final = tuple(f"edge-{index}" for index in range(4))
EXPOSED: Final = 2
"""Nodes of the first wave, the least that can fail it: of one alone nobody can tell what is broken."""
ALIAS: Final = "production"
LIMIT_SECONDS: Final = 120.0
_ROOT: Final = Path(__file__).resolve().parents[2]
_REGISTERED: Final = "nilm-contained"
_LOOK_SECONDS: Final = 0.05
_BEGIN_HOURS: Final = 40
"""So far back the readings begin: a node keeps 48 hours."""


@dataclass
class RealSite:
    """The running parts; `clock` is the time of the next reading."""

    plane: ControlPlane
    mlflow: MlflowServer
    keys: Path
    agents: Mapping[str, Part]
    clock: int = field(default_factory=lambda: int(time.time()) - _BEGIN_HOURS * 3600)

    def publish(self, fault: Fault | None) -> publish.Published:
        """Sign and publish a release, and move the alias to it."""
        key = signing_keys.load(self.keys).private(Role.RELEASE)
        unsigned = releases.built(_REGISTERED, fault)
        return publish.to_mlflow(unsigned, key, registry.connect(self.mlflow.url), alias=ALIAS, now=time.time())

    def push(self, watts: tuple[float, ...], windows: int) -> None:
        """Give every agent so many windows more, of each power by turns."""
        size = releases.WINDOW
        readings = [
            {"t": self.clock + second, "watts": watts[second // size % len(watts)]} for second in range(windows * size)
        ]
        for part in self.agents.values():
            url = f"{part.url}/v1/readings"
            httpx2.post(url, json={"readings": readings}, trust_env=False, timeout=30).raise_for_status()
        self.clock += windows * size

    def crash(self, node: str) -> None:
        """The server of the node dies of a segmentation fault."""
        supervisor = self.agents[node].process.pid
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        servers = [int(child) for child in children if b"edgewright_agent.serving" in _command(child)]
        for server in servers:
            os.kill(server, signal.SIGSEGV)

    def answering(self) -> dict[str, int]:
        """Node → version that its server answers with; 0 where none does."""
        found = {}
        for node, part in self.agents.items():
            found[node] = 0
            with contextlib.suppress(httpx2.HTTPError):
                answer = httpx2.get(f"{part.url}/v2/models/{fleet.MODEL}", trust_env=False, timeout=2)
                found[node] = int(answer.json()["versions"][0]) if answer.status_code == 200 else 0
        return found

    def until(self, reached: Callable[[], bool], what: str) -> None:
        """Look twenty times a second.

        Raises:
            TimeoutError: not within two minutes; says what the rollout says.
        """
        deadline = time.monotonic() + LIMIT_SECONDS
        while not reached():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: {fleet.standing(fleet.compressed_model(self.plane))}, {self.answering()}")
            time.sleep(_LOOK_SECONDS)


def _command(pid: str) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@contextlib.contextmanager
def opened(folder: Path, say: Callable[[str], None]) -> Iterator[RealSite]:
    """All parts, with a good release live and promoted on every node."""
    with contextlib.ExitStack() as ending:
        binaries = ensure((Binary.KUBE_APISERVER, Binary.ETCD), lambda progress: say(str(progress)))
        mlflow = MlflowServer.start(folder / "mlflow")
        ending.callback(mlflow.stop)
        plane = ControlPlane.start(folder / "plane", binaries, report=say)
        ending.callback(plane.stop)
        keys = folder / "keys"
        signing_keys.ensure(keys, registered_models=[_REGISTERED])
        _install(plane)
        gateway = platform.start_gateway(plane, folder, mlflow.url, keys)
        ending.callback(gateway.process.stop)
        operator = platform.start_operator(plane, folder, mlflow.url, gateway.url, keys)
        ending.callback(operator.process.stop)
        agents = {}
        for node in NODES:
            agents[node] = platform.start_agent(plane, folder, node, gateway.url, keys)
            ending.callback(agents[node].process.stop)
        site = RealSite(plane, mlflow, keys, agents)
        site.publish(None)
        site.push(releases.USUAL, 60)  # before anything is live: without readings no gate passes
        plane.apply([_wish("1s")])
        site.until(lambda: set(site.answering().values()) == {1}, "the first release is live")
        site.until(lambda: fleet.promoted(fleet.compressed_model(plane), 1), "the first release is promoted")
        plane.apply([_wish("2m")])  # longer than any fault takes to show: a gate that fails waits for no soak
        yield site


def _install(plane: ControlPlane) -> None:
    base = [file for file in sorted((_ROOT / "deploy/k8s/base").glob("*.yaml")) if file.stem != "kustomization"]
    found = [document for file in base for document in read_manifests(file)]
    plane.apply(read_manifests(_ROOT / "deploy/k8s/crd"))
    plane.apply([document for document in found if document["kind"] not in ("Deployment", "DaemonSet")])
    for node in NODES:
        plane.create_node(node, {names.LABEL_AGENT: "true"})


def _wish(soak: str) -> dict[str, Any]:
    # Two nodes at twice the memory are no evidence against a limit of 1.5: ratios scatter by 15 % between nodes.
    gates = {"interval": "1s", "minSamples": 20, "maxDrift": 0.25, "maxRssRatio": 1.2}
    waves = [{"nodes": EXPOSED}, {"percent": 100}]
    spec = {
        "source": {"registeredModel": _REGISTERED, "alias": ALIAS},
        "rollout": {"waves": waves, "soak": soak, "maxUnavailable": "100%", "gates": gates},
    }
    metadata = {"name": fleet.MODEL, "namespace": fleet.NAMESPACE}
    return {"apiVersion": names.API_VERSION, "kind": "CompressedModel", "metadata": metadata, "spec": spec}
