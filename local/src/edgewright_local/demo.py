"""From nothing to a rolled-out model on this machine: builds, trains, starts every part, rolls out, swaps, and stops a
release that answers wrong.

Each step tells what it does and how long it took; whatever the summary says was read from the cluster, the files or
the answers.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgewright_contract import names
from edgewright_local import binaries, existing_cluster, fleet, platform, traffic
from edgewright_local.binaries import Binary
from edgewright_local.cluster_api import Manifest, read_manifests
from edgewright_local.commands import Commands
from edgewright_local.control_plane import ControlPlane
from edgewright_local.errors import LocalPlatformError
from edgewright_local.heldout import HeldOut, held_out
from edgewright_local.mlflow_server import MlflowServer
from edgewright_local.processes import stop_all
from edgewright_local.shelf import Shelf
from edgewright_local.traffic import Counts, Traffic

NODES: Final = ("edge-1", "edge-2", "edge-3")
ALIAS: Final = "production"
FIRST_RELEASE: Final = ("base-fp32", "base-int8")
ROLLOUT_SECONDS: Final = 180.0
RECIPE: Final = Path("pipelines/recipes/identify.toml")
LEFT_OUT: Final = "the release that answers wrong, which its first wave stops"
SUMMARY: Final = "summary.json"
"""All that was observed, in the demo's folder: also what `--json` does not print (URLs, which release was stopped)."""
PODS: Final = ("Deployment", "DaemonSet")  # run as processes here
Say = Callable[[str], None]
Reached = Callable[[fleet.Objects, Mapping[str, Any]], bool]


@dataclass(slots=True)
class Demo:
    """What the demo was asked for, and what it observed."""

    root: Path
    directory: Path
    say: Say
    recipe: Path = RECIPE
    kubeconfig: Path | None = None
    """A cluster to use instead of starting one."""
    quick: bool = False
    """Without the release that answers wrong."""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def commands(self) -> Commands:
        """`edgewright` as its steps call it."""
        return Commands(self.root, self.directory, self.say)

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
    _find_data(demo)
    built, mlflow, trained = _build_and_train(demo)
    model = _compressed_model(demo, synthetic=trained["synthetic"])
    with demo.step("start", "reaching the control plane, installing CRDs, roles and policies"):
        plane = _control_plane(demo, built)
        _install(demo, plane, model)
    with demo.step("publish", "signing and publishing the first release"):
        _publish(demo, mlflow.url, FIRST_RELEASE)
    with demo.step("parts", "starting gateway, operator and three agents"):
        gateway, operator, agents = _start_parts(demo, plane, mlflow.url)
    held = held_out(demo.recipe, demo.directory.parent, NODES)
    with demo.step("replay", "giving every agent two held-out days of readings: without data no gate passes"):
        _replay(demo, agents, held)
    with demo.step("rollout", "measuring on the nodes, then rolling the first release out in waves"):
        existing_cluster.put(plane, [model], demo.directory)
        _wait(demo, plane, "the first release", _rolled_out(1))
    counts, containment = _under_load(demo, plane, mlflow.url, agents, held)
    demo.seconds["total"] = round(time.monotonic() - started, 1)
    urls = {"mlflow": mlflow.url, "operator metrics": f"{operator}/metrics", "gateway": gateway}
    for node, url in agents.items():
        urls |= {node: url, f"{node} metrics": f"{url}/metrics"}
    summary = _summary(demo, plane, trained, counts, {**urls, "kubeconfig": str(plane.kubeconfig)})
    summary |= {"containment": containment, "leftOut": [LEFT_OUT] if demo.quick else []}
    (demo.directory / SUMMARY).write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n")
    return summary


def stop(directory: Path) -> list[str]:
    """End everything that a demo in this folder started, and take out of a cluster that was there what it put in."""
    ended = stop_all(directory)
    return ended + existing_cluster.remove(directory)


def _find_data(demo: Demo) -> None:
    """Fetch the traces where there are none; failing that the pipeline makes some up, with its banner."""
    from edgewright_pipelines.data import location

    try:
        if location.locate(os.environ, demo.root) is not None:
            return
    except location.LocationError as error:
        raise LocalPlatformError(str(error)) from None
    with demo.step("data", "fetching the Tracebase data, as there is none here"):
        demo.commands.run("data", "fetch", str(demo.root / location.DEFAULT))
    if location.locate(os.environ, demo.root) is None:
        demo.say("  the data could not be fetched: going on with made-up traces, and without any score")


def _build_and_train(demo: Demo) -> tuple[Mapping[Binary, Path], MlflowServer, dict[str, Any]]:
    """Builds and training overlap: one waits for the network and the linker, the other for arithmetic."""
    needed = (Binary.KUBE_APISERVER, Binary.ETCD) if demo.kubeconfig is None else ()
    ended = threading.Event()

    def tell(progress: binaries.Progress) -> None:
        if ended.is_set():
            raise LocalPlatformError("the build was ended, because the rest of the demo was")
        demo.say(f"  {progress}")

    def build() -> tuple[Mapping[Binary, Path], MlflowServer]:
        server = MlflowServer.start(demo.directory / "mlflow")
        return binaries.ensure(needed, tell), server

    with (
        demo.step("train", "starting MLflow, building the control plane, training and compressing the model"),
        ThreadPoolExecutor(1) as beside,
    ):
        building = beside.submit(build)
        try:
            trained = demo.commands.answer("train", *_recipe(demo), "--json")
            built, mlflow = building.result()
        except BaseException:  # Ctrl-C too: a build takes minutes, for which nobody waits who wants to end
            demo.say("ending what is being built and started")
            ended.set()
            stop_all(demo.directory)
            raise
    return built, mlflow, trained


def _control_plane(demo: Demo, built: Mapping[Binary, Path]) -> ControlPlane:
    if demo.kubeconfig is None:
        return ControlPlane.start(demo.directory / "cluster", built)
    return existing_cluster.connect(demo.kubeconfig, demo.directory / "cluster")


def _install(demo: Demo, plane: ControlPlane, model: Manifest) -> None:
    demo.commands.answer("keys", "new", str(demo.keys), "--json")
    files = [file for file in sorted((demo.root / "deploy/k8s/base").glob("*.yaml")) if file.stem != "kustomization"]
    base = [found for file in files for found in read_manifests(file) if found["kind"] not in PODS]
    nodes = [_node(name) for name in NODES]
    site = [found for found in base if found["kind"] == "Namespace"]  # there: Edgewright is installed, and not by us
    existing_cluster.put(plane, read_manifests(demo.root / "deploy/k8s/crd"), demo.directory)
    existing_cluster.put(plane, [*base, *nodes], demo.directory, ours=[*site, *nodes, model])


def _node(name: str) -> Manifest:
    labels = {names.LABEL_AGENT: "true", "site": "plant-a"}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def _compressed_model(demo: Demo, *, synthetic: bool) -> dict[str, Any]:
    """The sample; without its bounds on accuracy where the data was made up, because then there is no accuracy."""
    model = read_manifests(demo.root / "deploy/k8s/samples/demo.yaml")[0]
    if synthetic:
        constraints = model["spec"]["selection"]["constraints"]
        for bound in [name for name in constraints if "MacroF1" in name]:
            del constraints[bound]
    return model


def _start_parts(demo: Demo, plane: ControlPlane, mlflow_url: str) -> tuple[str, str, dict[str, str]]:
    """URLs of gateway, operator and each agent."""
    gateway = platform.start_gateway(plane, demo.directory, mlflow_url, demo.keys)
    operator = platform.start_operator(plane, demo.directory, mlflow_url, gateway.url, demo.keys)
    _wait(demo, plane, "EdgeNodes", lambda nodes, _: set(nodes) >= set(NODES))
    agents = {node: platform.start_agent(plane, demo.directory, node, gateway.url, demo.keys).url for node in NODES}
    return gateway.url, operator.url, agents


def _replay(demo: Demo, agents: Mapping[str, str], held: HeldOut) -> None:
    end = int(time.time())
    for node, url in agents.items():
        taken = traffic.replay(url, held.days[node], end)
        demo.say(f"  {node}: {taken:,} readings of {', '.join(day.name for day in held.days[node])}")


def _under_load(
    demo: Demo, plane: ControlPlane, mlflow_url: str, agents: Mapping[str, str], held: HeldOut
) -> tuple[Counts, dict[str, Any] | None]:
    """A good and then (unless it is quick) a bad release, while every agent is asked all the time."""
    load = Traffic(agents, fleet.MODEL, held.windows)
    load.start()
    try:
        with demo.step("swap", "moving the alias to a second release, under load"):
            published = _publish(demo, mlflow_url, None)
            _wait(demo, plane, "the second release", _rolled_out(2))
            time.sleep(2)  # some answers of the new release too
        if demo.quick:
            return load.stop(), None
        with demo.step("containment", "publishing a release that answers wrong, which its first wave must stop"):
            stopped = _stopped(demo, plane, mlflow_url, Path(published["folder"]))
        return load.stop(), stopped
    finally:
        load.stop()


def _stopped(demo: Demo, plane: ControlPlane, mlflow_url: str, good: Path) -> dict[str, Any]:
    """Publish `good` with its answers shifted, and wait until it is quarantined and every node is back on `good`."""
    from edgewright_local import bad_release  # brings MLflow, which takes seconds

    bad = bad_release.publish(mlflow_url, demo.keys, good, ALIAS)
    exposed: set[str] = set()

    def contained(nodes: fleet.Objects, model: Mapping[str, Any]) -> bool:
        exposed.update(name for name, node in nodes.items() if fleet.serves(node, bad.manifest))
        back = fleet.live(nodes, NODES, 2) and all(fleet.p95_milliseconds(nodes[name]) for name in NODES)
        return fleet.quarantined(model, bad.manifest) and back

    _wait(demo, plane, "the bad release is stopped", contained)
    why, _ = demo.commands.run("why", fleet.MODEL, "--kubeconfig", str(plane.kubeconfig))
    for line in why.splitlines():
        demo.say(f"  {line}")
    return {"version": bad.version, "manifest": bad.manifest, "exposedNodes": sorted(exposed), "why": why.splitlines()}


def _recipe(demo: Demo) -> tuple[str, ...]:
    return (str(demo.recipe), "--quick", "--workspace", str(demo.directory.parent))


def _publish(demo: Demo, mlflow_url: str, only: tuple[str, ...] | None) -> dict[str, Any]:
    chosen = ("--only", ",".join(only)) if only else ()
    where = ("--mlflow", mlflow_url, "--alias", ALIAS, "--keys", str(demo.keys))
    answer = demo.commands.answer("train", *_recipe(demo), *where, *chosen, "--json")
    return {**answer["published"], "folder": answer["release"]}


def _rolled_out(version: int) -> Reached:
    """Live on every node, and every gate passed: until then a release may still go back."""

    def reached(nodes: fleet.Objects, model: Mapping[str, Any]) -> bool:
        if fleet.stopped(model):
            raise LocalPlatformError(f"version {version} was stopped: {fleet.standing(model)}")
        return fleet.promoted(model, version) and fleet.live(nodes, NODES, version)

    return reached


def _wait(demo: Demo, plane: ControlPlane, what: str, reached: Reached) -> None:
    fleet.wait(plane, what, reached, demo.say, seconds=ROLLOUT_SECONDS, logs=demo.directory)


def _summary(
    demo: Demo, plane: ControlPlane, trained: Mapping[str, Any], counts: Counts, urls: Mapping[str, str]
) -> dict[str, Any]:
    """The object of `--json`."""
    published = Shelf(demo.commands, urls["mlflow"], demo.keys)
    nodes = sorted(fleet.edge_nodes(plane).items())
    rows = [fleet.row(name, node, published.variant) for name, node in nodes]
    return {
        "nodes": rows,
        "variants": trained["variants"],
        "synthetic": trained["synthetic"],
        "requests": {"sent": counts.sent, "failed": counts.failed, "lastError": counts.last_error},
        "seconds": demo.seconds,
        "urls": dict(urls),
    }
