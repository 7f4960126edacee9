"""A whole site of real processes with a tiny model, scraped by a real Prometheus; one for all tests of this folder."""

from __future__ import annotations

import os
import secrets
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import yaml

from edgewright_contract import names
from edgewright_local.binaries import Binary
from edgewright_local.control_plane import ControlPlane
from edgewright_local.credentials import Credentials, prepare
from edgewright_local.mlflow_server import MlflowServer
from edgewright_local.ports import free_ports
from edgewright_local.processes import ManagedProcess, ProcessSpec
from edgewright_local.prometheus_server import PrometheusServer, ScrapeTarget
from edgewright_local.traffic import Traffic
from edgewright_pipelines import publish, registry, release, signing_keys
from edgewright_pipelines.signing_keys import Role

WINDOW = 64
"""Seconds, of `runnable_release`."""
_ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Scraped:
    """The running site: its model's name, its node, and who scrapes them."""

    prometheus: PrometheusServer
    model: str
    node: str
    plane: ControlPlane
    folder: Path
    gateway_url: str
    publish: Callable[[bool], None]
    """Publish the next release and move the alias to it; False: one that answers otherwise than it states."""
    pids: dict[str, int]


def _answering_otherwise(built: release.UnsignedRelease) -> release.UnsignedRelease:
    """The golden answers turned round, so that every node refuses it."""
    (entry,) = built.draft["variants"]
    entry["golden"]["answers"] = [list(reversed(row)) for row in entry["golden"]["answers"]]
    return built


def _with_reference(built: release.UnsignedRelease) -> release.UnsignedRelease:
    """Validated on windows like those that `_push` sends, so that the node says how far it is from them: not at all."""
    (entry,) = built.draft["variants"]
    histograms = {
        "confidence": {"edges": [0.9], "counts": [1, 999]},
        "meanWatts": {"edges": [1000.0], "counts": [1, 999]},
    }
    entry["reference"] = {"windows": 1000, "threshold": 0.5, "unknownRatio": 0.0, **histograms}
    return built


@dataclass(frozen=True)
class Part:
    """A process as its manifest starts it: command, variables and files, all paths below a folder of the test."""

    name: str
    root: Path

    confinement: tuple[str, ...]
    """What goes before the command so that it runs as in its pod; empty where this machine does not let us."""

    def _documents(self, file: str) -> list[dict[str, Any]]:
        return list(yaml.safe_load_all((_ROOT / "deploy" / "k8s" / "base" / file).read_text()))

    @property
    def pod(self) -> dict[str, Any]:
        """The manifest's own."""
        workload = next(found for found in self._documents(f"{self.name}.yaml") if found["kind"] != "Service")
        return dict(workload["spec"]["template"]["spec"])

    @property
    def container(self) -> dict[str, Any]:
        """The only one that stays."""
        return dict(self.pod["containers"][0])

    def writable(self) -> list[str]:
        """Where the pod may write: its emptyDirs and the node's folder."""
        volumes = {found["name"] for found in self.pod["volumes"] if {"emptyDir", "hostPath"} & found.keys()}
        return [self.path(mount["mountPath"]) for mount in self.container["volumeMounts"] if mount["name"] in volumes]

    def variable(self, short: str) -> str:
        """Full name of a setting."""
        return f"EDGEWRIGHT_{self.name.upper()}_{short}"

    def environment(self) -> dict[str, str]:
        """What the ConfigMap and the manifest give."""
        (source,) = self.container["envFrom"]
        maps = {found["metadata"]["name"]: found["data"] for found in self._documents("config.yaml")}
        given = dict(maps[source["configMapRef"]["name"]])
        given |= {entry["name"]: entry["value"] for entry in self.container["env"] if "value" in entry}
        return {name: self.path(value) if value.startswith("/") else value for name, value in given.items()}

    def path(self, inside: str) -> str:
        """Where a path of the container lies here."""
        return str(self.root / self.name / inside.lstrip("/"))

    def put(self, inside: str, content: bytes | str) -> None:
        """A file that a volume would show."""
        file = Path(self.path(inside))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def start(self, port: int, **changes: str) -> ManagedProcess:
        """Start with what differs here (addresses, ports) and wait until the manifest's own probe is answered."""
        program, *arguments = self.container["command"]
        kind = "METRICS_" if self.name == "operator" else ""
        here = {f"{kind}HOST": "127.0.0.1", f"{kind}PORT": str(port), **changes}
        given = {**self.environment(), **{self.variable(key): value for key, value in here.items()}}
        for folder in self.writable():
            Path(folder).mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **given, "TMPDIR": self.path("/tmp"), "WRITABLE": "\n".join(self.writable())}
        command = (*self.confinement, str(Path(sysconfig.get_path("scripts")) / program), *arguments)
        process = ManagedProcess.start(ProcessSpec(self.name, command, self.root, environment=environment))
        probe = self.container["readinessProbe"]["httpGet"]
        url = f"{probe.get('scheme', 'HTTP').lower()}://127.0.0.1:{port}{probe['path']}"
        process.wait_until_ready(lambda: _answers(url), 60)
        return process


# As in its pod: everything read-only but what is named, nobody's user, no capability and no way to gain one.
_CONFINE = """
set -e
echo "$WRITABLE" | while read -r folder; do mount --bind "$folder" "$folder"; done
mount -o remount,bind,ro /
exec unshare --user --map-user=65532 --map-group=65532 setpriv --no-new-privs "$@"
"""
_CONFINEMENT = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _CONFINE, "confined")


@pytest.fixture(scope="session")
def confinement(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The command that confines, if user namespaces are allowed here."""
    environment = {**os.environ, "WRITABLE": str(tmp_path_factory.mktemp("confined"))}
    try:
        tried = subprocess.run([*_CONFINEMENT, "true"], env=environment, capture_output=True, timeout=20)
    except FileNotFoundError:
        return ()
    return _CONFINEMENT if tried.returncode == 0 else ()


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=2, verify=False, trust_env=False).is_success  # as the kubelet asks
    except httpx2.HTTPError:
        return False


@pytest.fixture(scope="module")
def scraped(
    control_plane: ControlPlane,
    guarded: list[str],
    mlflow_server: MlflowServer,
    run_directory: Path,
    every_binary: dict[Binary, Path],
    confinement: tuple[str, ...],
    runnable_release: Callable[[str], release.UnsignedRelease],
) -> Iterator[Scraped]:
    """MLflow → gateway → operator → agent, as shipped: manifests, roles, policies, TLS; the first release Live."""
    folder, plane = run_directory / "site", control_plane
    node, model = (f"seen-{secrets.token_hex(3)}" for _ in range(2))
    keys = signing_keys.ensure(folder / "keys", registered_models=["seen-*"])
    client = registry.connect(mlflow_server.url)

    def published(good: bool) -> None:
        key = keys.private(Role.RELEASE)
        unsigned = _with_reference(runnable_release(model))
        unsigned = unsigned if good else _answering_otherwise(unsigned)
        publish.to_mlflow(unsigned, key, client, alias="production", now=time.time())

    published(True)
    plane.create_node(node, {names.LABEL_AGENT: "true", "site": node})
    operator, gateway, agent = (Part(name, folder, confinement) for name in ("operator", "gateway", "agent"))
    tls = prepare(folder / "pki", datetime.now(UTC))
    _mount(folder / "keys", tls, (operator, gateway, agent))
    ports = dict(zip(("operator", "gateway", "agent"), free_ports(3), strict=True))
    gateway_url = f"https://127.0.0.1:{ports['gateway']}"

    def account(name: str) -> str:
        return str(plane.kubeconfig_for(plane.service_account_token(names.NAMESPACE, name), name))

    def tokens(part: Part, bound: str | None) -> None:
        for file, audience in (("gateway-token", names.GATEWAY_AUDIENCE), ("api-token", None)):
            token = plane.service_account_token(names.NAMESPACE, part.name, audience, bound)
            part.put(f"/var/run/edgewright/identity/{file}", token)

    pids: dict[str, int] = {}
    with ExitStack() as ending:

        def run(part: Part, **changes: str) -> None:
            process = part.start(ports[part.name], **changes)
            ending.callback(process.stop)
            pids[part.name] = process.pid

        tokens(operator, None)
        run(gateway, MLFLOW_URL=mlflow_server.url, KUBECONFIG=account("gateway"))
        run(
            operator,
            MLFLOW_URL=mlflow_server.url,
            KUBECONFIG=account("operator"),
            GATEWAY_URL=gateway_url,
            SINGLE_TENANT="true",
            POLL_SECONDS="2",
            INTERVAL="1",
        )
        _until(lambda: _edge_node(plane, node), folder)
        tokens(agent, node)
        agent.put("/var/run/edgewright/identity/ca.crt", plane.ca.read_bytes())
        run(agent, NODE=node, API_URL=plane.url, GATEWAY_URL=gateway_url, RETRY_SECONDS="2", FIGURES_SECONDS="2")
        plane.apply([_wish(model, node)])
        ending.callback(plane.api.delete, [_wish(model, node)])
        ending.callback(plane.api.request, "DELETE", f"/api/v1/nodes/{node}")
        _until(lambda: _live(plane, node), folder)
        url = f"http://127.0.0.1:{ports['agent']}"
        traffic = Traffic({node: url}, model, np.full((1, WINDOW), 1500, np.uint16))
        traffic.start()
        ending.callback(traffic.stop)
        _push(url, time.time())
        schemes = {"operator": "http", "gateway": "https", "agent": "http"}
        targets = [ScrapeTarget(job, [f"127.0.0.1:{ports[job]}"], scheme=scheme) for job, scheme in schemes.items()]
        rules = _ROOT / "deploy" / "k8s" / "monitoring" / "rules.yaml"
        prometheus = PrometheusServer.start(
            folder / "prometheus", every_binary, targets, rule_files=[rules], scrape_seconds=0.5
        )
        ending.callback(prometheus.stop)
        yield Scraped(prometheus, f"default/{model}", node, plane, folder, gateway_url, published, pids)


def _mount(keys: Path, tls: Credentials, parts: tuple[Part, ...]) -> None:
    """What the objects that are made by hand hold (docs/operations.md), where each pod mounts it."""
    for part in parts:
        for file, content in (
            ("root.pub", (keys / "root.pub").read_bytes()),
            ("trust.json", (keys / names.TRUST_FILE).read_bytes()),
            ("gateway-ca.pem", tls.ca.read_bytes()),
        ):
            part.put(f"/etc/edgewright/{file}", content)
        part.put("/var/run/edgewright/tls/tls.crt", tls.server.certificate.read_bytes())
        part.put("/var/run/edgewright/tls/tls.key", tls.server.key.read_bytes())
        part.put("/var/run/edgewright/permit/permit.key", (keys / "permit.key").read_bytes())


def _push(url: str, now: float) -> None:
    """Readings of the last windows up to now, so that the live model says what runs and how its windows are spread."""
    readings = [{"t": int(now) - age, "watts": 1500.0} for age in range(42 * WINDOW, -1, -1)]
    answer = httpx2.post(f"{url}/v1/readings", json={"readings": readings}, trust_env=False)
    assert answer.is_success, answer.text


def _wish(model: str, node: str) -> dict[str, Any]:
    spec = {
        "source": {"registeredModel": model, "alias": "production"},
        "nodeSelector": {"matchLabels": {"site": node}},
        "rollout": {
            "waves": [{"percent": 100}],
            "soak": "1s",
            "maxUnavailable": "100%",
            "gates": {"interval": "2s", "minSamples": 1},
        },
    }
    return {
        "apiVersion": names.API_VERSION,
        "kind": "CompressedModel",
        "metadata": {"name": model, "namespace": "default"},
        "spec": spec,
    }


def _edge_node(plane: ControlPlane, node: str) -> dict[str, Any] | None:
    answer = plane.api.client.get(f"/apis/{names.API_VERSION}/{names.EDGE_NODES}/{node}")
    return dict(answer.json()) if answer.is_success else None


def _live(plane: ControlPlane, node: str) -> bool:
    found = _edge_node(plane, node) or {}
    return any(model["state"] == "Live" for model in (found.get("status") or {}).get("models") or [])


def _until(probe: Callable[[], Any], folder: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > deadline:
            logs = "".join(f"\n{log.name}:\n{log.read_text()[-2000:]}" for log in sorted(folder.rglob("*.log")))
            pytest.fail(f"the site did not come up within {seconds} s{logs}")
        time.sleep(0.2)
