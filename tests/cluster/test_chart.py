"""The chart, rendered by a real helm, against the base, rendered by a real kustomize; both on the real API server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgewright_local.binaries import Binary
from edgewright_local.control_plane import ControlPlane

_ROOT = Path(__file__).parents[2]
_CHART = _ROOT / "charts" / "edgewright"
_SETTINGS_STAMP = "edgewright.dev/settings"
_KEEP = {"helm.sh/resource-policy": "keep"}

Objects = dict[tuple[str, str], dict[str, Any]]
Render = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def helm(every_binary: dict[Binary, Path]) -> Render:
    def run(*values: str, namespace: str = "edgewright") -> subprocess.CompletedProcess[str]:
        command = [every_binary[Binary.HELM], "template", "edgewright", _CHART, "--namespace", namespace]
        given = [part for value in values for part in ("--set-json", value)]
        return subprocess.run([*command, *given], capture_output=True, text=True, timeout=60)

    return run


def _objects(rendered: subprocess.CompletedProcess[str]) -> Objects:
    assert rendered.returncode == 0, rendered.stderr
    return _named([document for document in yaml.safe_load_all(rendered.stdout) if document])


def _named(found: list[dict[str, Any]]) -> Objects:
    named = {(document["kind"], document["metadata"]["name"]): document for document in found}
    assert len(named) == len(found), "two objects share kind and name"
    return named


@pytest.fixture(scope="session")
def base(kustomized: Callable[[Path], list[dict[str, Any]]]) -> Objects:
    return _named(kustomized(_ROOT / "deploy" / "k8s" / "base"))


def test_with_its_defaults_it_holds_what_the_base_holds(helm: Render, base: Objects) -> None:
    chart = _objects(helm())
    assert set(base) - set(chart) == {("Namespace", "edgewright")}
    assert set(chart) <= set(base)
    for key, document in chart.items():
        if document["kind"] == "CustomResourceDefinition":
            assert document["metadata"].pop("annotations") == _KEEP
        if document["kind"] in ("Deployment", "DaemonSet"):
            assert len(document["spec"]["template"]["metadata"].pop("annotations")[_SETTINGS_STAMP]) == 64
            for container in _containers(document):
                assert container.pop("imagePullPolicy") == "IfNotPresent"
        assert document == base[key], key


def _containers(workload: dict[str, Any]) -> list[dict[str, Any]]:
    pod = workload["spec"]["template"]["spec"]
    return [*pod.get("initContainers", []), *pod["containers"]]


_OTHERS = (
    'images={"operator":{"repository":"r.example/o","tag":"9"},"agent":{"repository":"r.example/a","tag":"8"}}',
    'imagePullSecrets=[{"name":"registry"}]',
    'mlflow={"url":"https://mlflow.example.org"}',
    'gateway={"url":"https://gateway.example.org"}',
    "singleTenant=true",
    'operator={"replicas":3,"settings":{"POLL_SECONDS":60}}',
    'agent={"state":"emptyDir","settings":{"TRIAL_SECONDS":7},"tolerations":[{"key":"edge","operator":"Exists"}]}',
)


def test_values_reach_the_objects(helm: Render, control_plane: ControlPlane, guarded: list[str]) -> None:
    chart = _objects(helm(*_OTHERS))
    workloads = {name: found["spec"]["template"]["spec"] for (kind, name), found in chart.items() if "spec" in found
                 and kind in ("Deployment", "DaemonSet")}  # fmt: skip
    assert {name: pod["containers"][0]["image"] for name, pod in workloads.items()} == {
        "operator": "r.example/o:9", "gateway": "r.example/o:9", "agent": "r.example/a:8",
    }  # fmt: skip
    assert all(pod["imagePullSecrets"] == [{"name": "registry"}] for pod in workloads.values())
    agent = workloads["agent"]
    assert "initContainers" not in agent
    assert {"name": "state", "emptyDir": {"sizeLimit": "4Gi"}} in agent["volumes"]
    assert agent["tolerations"] == [{"key": "edge", "operator": "Exists"}]
    data = {name: found["data"] for (kind, name), found in chart.items() if kind == "ConfigMap"}
    assert data["edgewright-operator"] == {
        "EDGEWRIGHT_OPERATOR_MLFLOW_URL": "https://mlflow.example.org",
        "EDGEWRIGHT_OPERATOR_SINGLE_TENANT": "true",
        "EDGEWRIGHT_OPERATOR_POLL_SECONDS": "60",
    }
    assert data["edgewright-gateway"] == {"EDGEWRIGHT_GATEWAY_MLFLOW_URL": "https://mlflow.example.org"}
    assert data["edgewright-agent"] == {
        "EDGEWRIGHT_AGENT_GATEWAY_URL": "https://gateway.example.org",
        "EDGEWRIGHT_AGENT_TRIAL_SECONDS": "7",
    }
    for document in chart.values():
        query = {"dryRun": "All", "fieldValidation": "Strict", "fieldManager": "helm", "force": "true"}
        headers = {"Content-Type": "application/apply-patch+yaml"}
        path = control_plane.api.path(document, "edgewright")
        answer = control_plane.api.client.patch(path, params=query, headers=headers, content=json.dumps(document))
        assert answer.is_success, answer.text


def test_a_changed_setting_restarts_the_pods_that_read_it(helm: Render) -> None:
    def stamps(*values: str) -> dict[str, str]:
        return {
            name: document["spec"]["template"]["metadata"]["annotations"][_SETTINGS_STAMP]
            for (kind, name), document in _objects(helm(*values)).items()
            if kind in ("Deployment", "DaemonSet")
        }

    before = stamps()
    after = stamps('agent.settings={"TRIAL_SECONDS":7}')
    assert {name for name in before if before[name] != after[name]} == {"agent"}


def test_without_crds_all_else_stays(helm: Render) -> None:
    gone = set(_objects(helm())) - set(_objects(helm("crds.install=false")))
    assert {kind for kind, _ in gone} == {"CustomResourceDefinition"}


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ('agent.stat="emptyDir"', "'stat' not allowed"),
        ('agent.state="tmpfs"', "'hostPath', 'emptyDir'"),
        ('mlflow.url="mlflow:5000"', "does not match pattern"),
        ("operator.replicas=0", "minimum"),
        ('agent.settings={"trial-seconds":"1"}', "trial-seconds"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(helm: Render, value: str, sentence: str) -> None:
    rendered = helm(value)
    assert rendered.returncode != 0
    assert sentence in rendered.stderr


def test_another_namespace_is_refused_with_the_reason(helm: Render) -> None:
    rendered = helm(namespace="default")
    assert rendered.returncode != 0
    assert "lives in the namespace edgewright, not in default" in rendered.stderr


def test_helm_itself_finds_no_fault(every_binary: dict[Binary, Path]) -> None:
    command = [every_binary[Binary.HELM], "lint", "--strict", "--namespace", "edgewright", _CHART]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stdout + answer.stderr
