"""A whole site of real processes with a tiny model, scraped by a real Prometheus; one for all tests of this folder."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright_contract import names
from edgewright_contract import release as contract
from edgewright_local import platform
from edgewright_local.binaries import Binary
from edgewright_local.control_plane import ControlPlane
from edgewright_local.mlflow_server import MlflowServer
from edgewright_local.prometheus_server import PrometheusServer, ScrapeTarget
from edgewright_local.traffic import Traffic
from edgewright_pipelines import publish, registry, release, signing_keys
from edgewright_pipelines.signing_keys import Role

WINDOW, LABELS = 64, ("idle", "kettle", "fridge")
_ROOT = Path(__file__).parents[3]
_NOW = 1_790_000_000.0


@dataclass(frozen=True)
class Scraped:
    """The running site: its model's name, its node, and who scrapes them."""

    prometheus: PrometheusServer
    model: str
    node: str
    plane: ControlPlane
    folder: Path


def _tiny() -> bytes:
    """Softmax over mean watts / 1000 times [-1, 1, 0]: low watts say idle, high ones kettle."""
    weight = np.stack([-np.ones(WINDOW), np.ones(WINDOW), np.zeros(WINDOW)], 1).astype(np.float32) / (WINDOW * 1000)
    nodes = [
        helper.make_node("Flatten", ["watts"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    watts = helper.make_tensor_value_info("watts", TensorProto.FLOAT, ["batch", 1, WINDOW])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(LABELS)])
    graph = helper.make_graph(nodes, "tiny", [watts], [answer], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def _unsigned(name: str) -> release.UnsignedRelease:
    digest = f"sha256:{'3' * 64}"
    origin = release.Origin(name, digest, digest, True, datetime.fromtimestamp(_NOW, UTC))
    figures = release.Figures(3 * WINDOW, 3 * WINDOW, 1.0, 2.0, None)
    variant = release.BuiltVariant("base-fp32", _tiny(), contract.Precision.FP32, None, None, figures)
    golden = np.stack([np.full(WINDOW, 5), np.full(WINDOW, 2000)]).astype(np.uint16)
    reference = release.reference_of(LABELS, np.array([0, 1]), golden)
    window = contract.Window(seconds=WINDOW, hop_seconds=16)
    return release.build(origin, window, LABELS, [variant], golden, reference, tolerance=0.01)


@pytest.fixture(scope="session")
def scraped(
    control_plane: ControlPlane,
    guarded: list[str],
    mlflow_server: MlflowServer,
    run_directory: Path,
    every_binary: dict[Binary, Path],
) -> Iterator[Scraped]:
    """MLflow → gateway → operator → agent, all on the shipped roles; the first release Live, under traffic."""
    folder = run_directory / "monitored"
    node, model = f"seen-{secrets.token_hex(3)}", f"seen-{secrets.token_hex(3)}"
    keys = signing_keys.ensure(folder / "keys", registered_models=["seen-*"])
    client = registry.connect(mlflow_server.url)
    publish.to_mlflow(_unsigned(model), keys.private(Role.RELEASE), client, alias="production", now=_NOW)
    control_plane.create_node(node, {names.LABEL_AGENT: "true", "site": node})
    with ExitStack() as ending:
        gateway = platform.start_gateway(control_plane, folder, mlflow_server.url, folder / "keys")
        ending.callback(gateway.process.stop)
        operator = platform.start_operator(control_plane, folder, mlflow_server.url, gateway.url, folder / "keys")
        ending.callback(operator.process.stop)
        _until(lambda: _edge_node(control_plane, node), folder)
        agent = platform.start_agent(control_plane, folder, node, gateway.url, folder / "keys")
        ending.callback(agent.process.stop)
        control_plane.apply([_wish(model, node)])
        ending.callback(control_plane.api.delete, [_wish(model, node)])
        ending.callback(control_plane.api.request, "DELETE", f"/api/v1/nodes/{node}")
        _until(lambda: _live(control_plane, node), folder)
        traffic = Traffic({node: agent.url}, model, np.full((1, WINDOW), 1500, np.uint16))
        traffic.start()
        ending.callback(traffic.stop)
        _push(agent.url, time.time())
        targets = [
            ScrapeTarget(job, [urlsplit(part.url).netloc])
            for job, part in (("operator", operator), ("gateway", gateway), ("agent", agent))
        ]
        rules = _ROOT / "deploy" / "k8s" / "monitoring" / "rules.yaml"
        prometheus = PrometheusServer.start(
            folder / "prometheus", every_binary, targets, rule_files=[rules], scrape_seconds=0.5
        )
        ending.callback(prometheus.stop)
        yield Scraped(prometheus, f"default/{model}", node, control_plane, folder)


def _push(url: str, now: float) -> None:
    """Readings of the last windows up to now, so that the live model says what runs."""
    readings = [{"t": int(now) - age, "watts": 1500.0} for age in range(4 * WINDOW, -1, -1)]
    answer = httpx2.post(f"{url}/v1/readings", json={"readings": readings}, trust_env=False)
    assert answer.is_success, answer.text


def _wish(model: str, node: str) -> dict[str, Any]:
    spec = {
        "source": {"registeredModel": model, "alias": "production"},
        "nodeSelector": {"matchLabels": {"site": node}},
        "rollout": {"waves": [{"percent": 100}], "soak": "1s", "maxUnavailable": "100%"},
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
