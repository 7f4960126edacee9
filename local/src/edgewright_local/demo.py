"""From nothing to a rolled-out model on this machine: builds, trains, starts every part, rolls out, swaps."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgewright_contract import names
from edgewright_local import binaries, platform
from edgewright_local.binaries import Binary
from edgewright_local.cluster_api import read_manifests
from edgewright_local.control_plane import ControlPlane
from edgewright_local.errors import LocalPlatformError
from edgewright_local.mlflow_server import MlflowServer
from edgewright_local.processes import ManagedProcess, ProcessSpec, stop_all
from edgewright_local.traffic import Counts, Traffic

NODES: Final = ("edge-1", "edge-2", "edge-3")
MODEL: Final = "nilm"
ALIAS: Final = "production"
FIRST_RELEASE: Final = ("base-fp32", "base-int8")
ROLLOUT_SECONDS: Final = 180.0
Say = Callable[[str], None]


@dataclass(slots=True)
class Demo:
    """What the demo started and observed."""

    root: Path
    directory: Path
    say: Say
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def keys(self) -> Path:
        """Folder of the signing keys that this demo made."""
        return self.directory / "keys"

    @contextmanager
    def step(self, name: str, title: str) -> Iterator[None]:
        """Tell what runs, and how long it took."""
        self.say(f"… {title}")
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)
        self.say(f"✓ {title} ({self.seconds[name]} s)")


def run(demo: Demo) -> dict[str, Any]:
    """Everything up to the summary; the parts keep running until `stop`.

    Raises:
        LocalPlatformError: a part did not start or the rollout did not end, with the reason and where the log is.
    """
    started = time.monotonic()
    built, variants = _build_and_train(demo)
    with demo.step("start", "starting MLflow and the control plane"):
        mlflow = MlflowServer.start(demo.directory / "mlflow")
        plane = ControlPlane.start(demo.directory / "cluster", built)
        _install(demo, plane)
    with demo.step("publish", "signing and publishing the first release"):
        _publish(demo, mlflow.url, FIRST_RELEASE)
    with demo.step("parts", "starting gateway, operator and three agents"):
        gateway = platform.start_gateway(plane, demo.directory, mlflow.url, demo.keys)
        platform.start_operator(plane, demo.directory, mlflow.url, gateway.url)
        _wait(demo, plane, "EdgeNodes", lambda nodes: set(nodes) >= set(NODES))
        agents = {
            node: platform.start_agent(plane, demo.directory, node, gateway.url, demo.keys).url for node in NODES
        }
    with demo.step("rollout", "rolling the first release out in waves"):
        plane.apply(read_manifests(demo.root / "deploy/k8s/samples/demo.yaml"))
        _wait(demo, plane, "the first release", lambda nodes: _live(nodes, 1))
    traffic = Traffic(agents, MODEL, _windows(demo))
    traffic.start()
    try:
        with demo.step("swap", "moving the alias to a second release, under load"):
            _publish(demo, mlflow.url, None)
            _wait(demo, plane, "the second release", lambda nodes: _live(nodes, 2))
            time.sleep(2)  # some answers of the new release too
    finally:
        counts = traffic.stop()
    demo.seconds["total"] = round(time.monotonic() - started, 1)
    urls = {"mlflow": mlflow.url, "kubeconfig": str(plane.kubeconfig), **agents}
    return _summary(demo, plane, variants, counts, urls)


def stop(directory: Path) -> list[str]:
    """End everything that a demo in this folder started; the names of what was ended."""
    return stop_all(directory)


def _build_and_train(demo: Demo) -> tuple[Mapping[Binary, Path], list[dict[str, Any]]]:
    """Builds and training overlap: one waits for the network and the linker, the other for arithmetic."""
    failure: list[LocalPlatformError] = []
    found: dict[Binary, Path] = {}

    def build() -> None:
        try:
            found.update(binaries.ensure((Binary.KUBE_APISERVER, Binary.ETCD), lambda line: demo.say(f"  {line}")))
        except LocalPlatformError as error:
            failure.append(error)

    builder = threading.Thread(target=build)
    with demo.step("train", "building the control plane, training and compressing the model"):
        builder.start()
        summary = _edgewright(demo, "train", *_recipe(demo), "--json")
        builder.join()
    if failure:
        raise failure[0]
    return found, summary["variants"]


def _recipe(demo: Demo) -> tuple[str, ...]:
    recipe = demo.root / "pipelines/recipes/identify.toml"
    return (str(recipe), "--quick", "--workspace", str(demo.directory.parent))


def _publish(demo: Demo, mlflow_url: str, only: tuple[str, ...] | None) -> dict[str, Any]:
    chosen = ("--only", ",".join(only)) if only else ()
    where = ("--mlflow", mlflow_url, "--alias", ALIAS, "--keys", str(demo.keys))
    return dict(_edgewright(demo, "train", *_recipe(demo), *where, *chosen, "--json")["published"])


def _edgewright(demo: Demo, *arguments: str) -> dict[str, Any]:
    """The last line of an `edgewright` command, which runs as a managed process so that `stop` ends it too."""
    command = [sys.executable, "-m", "edgewright_cli.main", *arguments]
    answer = demo.directory / "answer.json"
    shell = 'out=$1; shift; exec "$@" >"$out"'
    spec = ProcessSpec("train", ("/bin/sh", "-c", shell, "sh", str(answer), *command), demo.directory)
    process = ManagedProcess.start(spec)
    seen = 0
    while process.running:
        time.sleep(0.5)
        lines = spec.log.read_text(errors="replace").splitlines()
        for line in lines[seen:]:
            demo.say(f"  {line}")
        seen = len(lines)
    process.stop()
    try:
        return dict(json.loads(answer.read_text().splitlines()[-1]))
    except (OSError, IndexError, ValueError):
        raise LocalPlatformError(f"edgewright {arguments[0]} failed:\n{process.log_tail()}") from None


def _install(demo: Demo, plane: ControlPlane) -> None:
    subprocess.run(
        [sys.executable, "-m", "edgewright_cli.main", "keys", "new", str(demo.keys)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    plane.apply(read_manifests(demo.root / "deploy/k8s/crd"))
    files = [file for file in sorted((demo.root / "deploy/k8s/base").glob("*.yaml")) if file.stem != "kustomization"]
    pods = ("Deployment", "DaemonSet")  # run as processes here
    base = [found for file in files for found in read_manifests(file) if found["kind"] not in pods]
    plane.apply(base, namespace=names.NAMESPACE)
    for node in NODES:
        plane.create_node(node, {names.LABEL_AGENT: "true", "site": "plant-a"})


def _edge_nodes(plane: ControlPlane) -> dict[str, dict[str, Any]]:
    found = plane.api.request("GET", f"/apis/{names.API_VERSION}/{names.EDGE_NODES}")
    return {item["metadata"]["name"]: item for item in found["items"]}


def _model(node: Mapping[str, Any]) -> dict[str, Any]:
    models = (node.get("status") or {}).get("models") or []
    return next((dict(model) for model in models if model["name"] == f"default/{MODEL}"), {})


def _live(nodes: Mapping[str, Mapping[str, Any]], version: int) -> bool:
    found = [_model(nodes[name]) for name in NODES if name in nodes]
    return len(found) == len(NODES) and all(
        model.get("state") == "Live" and model.get("live", {}).get("version") == version for model in found
    )


def _wait(
    demo: Demo, plane: ControlPlane, what: str, reached: Callable[[dict[str, dict[str, Any]]], bool]
) -> None:
    """Poll the cluster, telling each change, until `reached` or the deadline."""
    deadline = time.monotonic() + ROLLOUT_SECONDS
    told: dict[str, str] = {}
    while True:
        nodes = _edge_nodes(plane)
        for name, node in sorted(nodes.items()):
            model = _model(node)
            live = model.get("live") or {}
            line = f"{model.get('state', 'nothing')} {live.get('variant', '')} {model.get('reason', '')}".strip()
            if told.get(name) != line:
                told[name] = line
                demo.say(f"  {name}: {line}")
        if reached(nodes):
            return
        if time.monotonic() > deadline:
            logs = ", ".join(str(log) for log in sorted(demo.directory.rglob("*.log")))
            raise LocalPlatformError(f"{what}: not there after {ROLLOUT_SECONDS:.0f} s; the logs are {logs}")
        time.sleep(0.5)


def _windows(demo: Demo) -> Any:
    """Held-out test windows, cut as the recipe says."""
    from edgewright_local.heldout import windows

    return windows(demo.root / "pipelines/recipes/identify.toml", demo.directory.parent)


def _summary(
    demo: Demo, plane: ControlPlane, variants: list[dict[str, Any]], counts: Counts, urls: Mapping[str, str]
) -> dict[str, Any]:
    """The object of `--json`; every value was read from the cluster, the files or the answers."""
    rows = []
    for name, node in sorted(_edge_nodes(plane).items()):
        model = _model(node)
        live = model.get("live") or {}
        figures = model.get("figures") or {}
        p95 = figures.get("p95Microseconds")
        rows.append(
            {
                "name": name,
                "hardwareClass": ((node.get("status") or {}).get("hardware") or {}).get("class", ""),
                "release": live.get("version"),
                "variant": live.get("variant"),
                "state": model.get("state"),
                "p95Milliseconds": p95 / 1000 if p95 else None,
            }
        )
    return {
        "nodes": rows,
        "variants": variants,
        "requests": {"sent": counts.sent, "failed": counts.failed, "lastError": counts.last_error},
        "seconds": demo.seconds,
        "urls": dict(urls),
    }
