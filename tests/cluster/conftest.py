"""The real API server and MLflow for this folder: one for each pytest process, a namespace for each test."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from edgewright_contract import names
from edgewright_local.binaries import Binary, Phase, Progress, ensure, missing
from edgewright_local.cluster_api import read_manifests
from edgewright_local.control_plane import ControlPlane
from edgewright_local.mlflow_server import MlflowServer
from edgewright_local.process_records import start_ticks
from edgewright_local.processes import stop_all

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
_NEEDED = (Binary.KUBE_APISERVER, Binary.ETCD)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.cluster)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Build before the first test: a first build takes minutes, which must not count against a test's timeout."""
    if session.config.option.collectonly or not any(item.path.is_relative_to(_HERE) for item in session.items):
        return
    used = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    needed = tuple(Binary) if "every_binary" in used else _NEEDED
    if missing(needed):
        ensure(needed, _tell)


def _tell(progress: Progress) -> None:
    if progress.phase is Phase.CACHED:
        return
    print(progress, file=sys.__stderr__, flush=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each query of the dashboards: `rollback_query` those about rollbacks, `dashboard_query` the rest."""
    for argument, wanted in (("dashboard_query", False), ("rollback_query", True)):
        if argument in metafunc.fixturenames:
            found = {name: it for name, it in _queries().items() if ("edgewright_rollbacks_total" in it) is wanted}
            metafunc.parametrize(argument, found.values(), ids=found.keys())


def _queries() -> dict[str, str]:
    """`board: panel letter` → expression, the variables filled in as Grafana does for "All"."""
    found = {}
    for board in sorted((_ROOT / "deploy" / "k8s" / "monitoring" / "dashboards").glob("*.json")):
        for panel in (panel for panel in json.loads(board.read_text())["panels"] if panel["type"] != "row"):
            for target in panel["targets"]:
                filled = re.sub(r"\$(model|instance)\b", ".*", target["expr"]).replace("$__rate_interval", "10s")
                found[f"{board.stem}: {panel['title']} {target['refId']}"] = filled
    assert found
    return found


@pytest.fixture(scope="session")
def dashboard_queries() -> list[str]:
    """Every query of the dashboards."""
    return list(_queries().values())


@pytest.fixture(scope="session")
def run_directory() -> Iterator[Path]:
    """A folder for this pytest process; ends first what pytest processes that were killed have left running."""
    top = Path(tempfile.gettempdir()) / f"edgewright-tests-{os.getuid()}"
    top.mkdir(mode=0o700, exist_ok=True)
    if top.stat().st_uid != os.getuid():
        pytest.fail(f"{top} belongs to somebody else; set TMPDIR to a folder of your own")
    for left in top.iterdir():
        pid, _, ticks = left.name.partition("-")
        if str(start_ticks(int(pid))) != ticks:
            stop_all(left)
            shutil.rmtree(left, ignore_errors=True)
    mine = top / f"{os.getpid()}-{start_ticks(os.getpid())}"
    mine.mkdir()
    yield mine
    ended = stop_all(mine)
    shutil.rmtree(mine)
    assert ended == [], f"fixtures left processes running, which were ended now: {ended}"


@pytest.fixture(scope="session")
def binaries() -> dict[Binary, Path]:
    """kube-apiserver and etcd."""
    return ensure(_NEEDED, _tell)


@pytest.fixture(scope="session")
def every_binary() -> dict[Binary, Path]:
    """The controller-manager, kubectl, Prometheus and promtool as well (a first build takes some minutes more)."""
    return ensure(tuple(Binary), _tell)


@pytest.fixture(scope="session")
def kustomized(every_binary: dict[Binary, Path]) -> Callable[[Path], list[dict[str, Any]]]:
    """The objects of a folder as a real kustomize renders them."""

    def render(folder: Path) -> list[dict[str, Any]]:
        command = [every_binary[Binary.KUBECTL], "kustomize", folder]
        rendered = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert rendered.returncode == 0, rendered.stderr
        return list(yaml.safe_load_all(rendered.stdout))

    return render


@pytest.fixture(scope="session")
def control_plane(run_directory: Path, binaries: dict[Binary, Path]) -> Iterator[ControlPlane]:
    """etcd and kube-apiserver, without the controller-manager: nothing is collected, namespaces never vanish."""
    plane = ControlPlane.start(run_directory / "control-plane", binaries)
    yield plane
    plane.stop()


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> httpx2.Client:
    """HTTP client with the administrator's rights; its base URL is the API server."""
    return control_plane.api.client


@pytest.fixture(scope="session")
def crds(control_plane: ControlPlane) -> list[str]:
    """Names of the CRDs of deploy/k8s/crd, which are served from here on."""
    folder = _ROOT / "deploy" / "k8s" / "crd"
    manifests = [document for document in read_manifests(folder) if document["kind"] == "CustomResourceDefinition"]
    if not manifests:
        pytest.fail(f"{folder} holds no CustomResourceDefinition; run `make generate`")
    return [stored["metadata"]["name"] for stored in control_plane.apply(manifests)]


@pytest.fixture(scope="session")
def guarded(control_plane: ControlPlane, crds: list[str]) -> list[str]:
    """The CRDs with the shipped namespace, roles and admission policies; they stay for the tests that follow."""
    for file in ("namespace.yaml", "rbac.yaml", "policies.yaml"):
        control_plane.apply(read_manifests(_ROOT / "deploy" / "k8s" / "base" / file))
    return crds


@pytest.fixture(scope="session")
def as_agent() -> Callable[[str], dict[str, str]]:
    """Headers that play the agent of a node, which the policies ask for whether or not they are installed yet."""
    return lambda node: {
        "Content-Type": "application/merge-patch+json",
        "Impersonate-User": "played-agent",
        "Impersonate-Group": "system:masters",
        "Impersonate-Extra-" + names.EXTRA_NODE_NAME.replace("/", "%2f"): node,
    }


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A fresh namespace; it is asked to go afterwards, which nobody waits for."""
    name = f"test-{secrets.token_hex(4)}"
    control_plane.api.create_namespace(name)
    yield name
    control_plane.api.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="session")
def mlflow_server(run_directory: Path) -> Iterator[MlflowServer]:
    """A real MLflow server with an empty registry."""
    server = MlflowServer.start(run_directory / "mlflow")
    yield server
    server.stop()
