"""The shipped manifests on the real API server: known fields only, and pods of the Pod Security level they claim."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from edgewright_contract import names
from edgewright_local.cluster_api import read_manifests
from edgewright_local.control_plane import ControlPlane

_K8S = Path(__file__).parents[2] / "deploy" / "k8s"
_BASE = _K8S / "base"
_FILES = [path for path in sorted(_BASE.glob("*.yaml")) if path.name != "kustomization.yaml"]


def _dry(plane: ControlPlane, document: dict[str, Any], namespace: str) -> httpx2.Response:
    """What the server says to the document, unknown and repeated fields refused; nothing is kept."""
    metadata = {**document["metadata"], "name": f"{document['metadata']['name']}-{secrets.token_hex(3)}"}
    path = plane.api.path({**document, "metadata": metadata}, namespace)
    query = {"dryRun": "All", "fieldValidation": "Strict"}
    return plane.api.client.post(path.rpartition("/")[0], params=query, json={**document, "metadata": metadata})


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.stem)
def test_the_server_knows_every_field(file: Path, control_plane: ControlPlane, guarded: list[str]) -> None:
    for document in read_manifests(file):
        answer = _dry(control_plane, document, names.NAMESPACE)
        assert answer.status_code == 201, answer.text


def test_a_misspelled_field_is_refused(control_plane: ControlPlane, guarded: list[str]) -> None:
    (document, *_) = read_manifests(_BASE / "operator.yaml")
    document["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    answer = _dry(control_plane, document, names.NAMESPACE)
    assert answer.status_code == 400
    assert "readinesProbe" in answer.json()["message"]


@pytest.fixture
def restricted(control_plane: ControlPlane) -> Iterator[Callable[[dict[str, Any]], httpx2.Response]]:
    """Asks a namespace of level `restricted` to take the pod of a workload; nothing is kept."""
    name = f"restricted-{secrets.token_hex(3)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    control_plane.api.request("POST", "/api/v1/namespaces", json=namespace)
    for account in ("operator", "gateway", "agent"):
        control_plane.api.create_service_account(name, account)

    def ask(workload: dict[str, Any]) -> httpx2.Response:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p"},
            "spec": workload["spec"]["template"]["spec"],
        }
        query = {"dryRun": "All", "fieldValidation": "Strict"}
        return control_plane.api.client.post(f"/api/v1/namespaces/{name}/pods", params=query, json=pod)

    yield ask
    control_plane.api.request("DELETE", f"/api/v1/namespaces/{name}")


def _workload(file: Path) -> dict[str, Any]:
    return next(document for document in read_manifests(file) if document["kind"] in ("Deployment", "DaemonSet"))


@pytest.mark.parametrize("name", ["operator", "gateway"])
def test_operator_and_gateway_meet_the_level_restricted(
    name: str, restricted: Callable[[dict[str, Any]], httpx2.Response]
) -> None:
    answer = restricted(_workload(_BASE / f"{name}.yaml"))
    assert answer.status_code == 201, answer.text


def test_only_the_folder_on_the_node_keeps_the_agent_from_it(
    restricted: Callable[[dict[str, Any]], httpx2.Response],
) -> None:
    refused = restricted(_workload(_BASE / "agent.yaml"))
    assert refused.status_code == 403
    assert 'volume "state" uses restricted volume type "hostPath"' in refused.json()["message"]
    assert 'container "agent"' not in refused.json()["message"]


def test_the_restricted_overlay_meets_it_as_a_whole(
    restricted: Callable[[dict[str, Any]], httpx2.Response], kustomized: Callable[[Path], list[dict[str, Any]]]
) -> None:
    documents = kustomized(_K8S / "overlays" / "restricted")
    for document in (found for found in documents if found["kind"] in ("Deployment", "DaemonSet")):
        answer = restricted(document)
        assert answer.status_code == 201, answer.text
    (namespace,) = [found for found in documents if found["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
