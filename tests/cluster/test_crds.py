"""The generated CRDs on the real API server: what it accepts, what it fills in, and each sentence of refusal."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest

from edgewright_contract import names
from edgewright_contract.compressedmodel import CompressedModelSpec
from edgewright_local.control_plane import ControlPlane
from edgewright_local.errors import ClusterError

pytestmark = pytest.mark.usefixtures("crds")
_DIGEST = "sha256:" + "0a" * 32


def _model(**spec: Any) -> dict[str, Any]:
    source = {"registeredModel": "nilm-identify", "alias": "production"}
    return {
        "apiVersion": names.API_VERSION,
        "kind": "CompressedModel",
        "metadata": {"name": "nilm"},
        "spec": {"source": source, **spec},
    }


def test_the_server_fills_in_what_the_types_fill_in(control_plane: ControlPlane, namespace: str) -> None:
    (stored,) = control_plane.apply([_model()], namespace)
    expected = CompressedModelSpec.model_validate(_model()["spec"])
    assert stored["spec"] == expected.model_dump(by_alias=True, mode="json", exclude_none=True)


def test_a_partly_given_rollout_keeps_the_other_defaults(control_plane: ControlPlane, namespace: str) -> None:
    (stored,) = control_plane.apply([_model(rollout={"gates": {"minSamples": 5}})], namespace)
    assert stored["spec"]["rollout"]["gates"]["minSamples"] == 5
    assert stored["spec"]["rollout"]["gates"]["minAgreement"] == 0.95
    assert stored["spec"]["rollout"]["waves"][-1] == {"percent": 100}


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"source": {"registeredModel": "m"}}, "spec.source: set exactly one of alias and version"),
        (
            {"source": {"registeredModel": "m", "alias": "a", "version": 1}},
            "spec.source: set exactly one of alias and version",
        ),
        ({"rollout": {"waves": [{}, {"percent": 100}]}}, "each wave sets exactly one of nodes and percent"),
        (
            {"rollout": {"waves": [{"nodes": 1, "percent": 2}, {"percent": 100}]}},
            "each wave sets exactly one of nodes and percent",
        ),
        ({"rollout": {"waves": [{"nodes": 1}]}}, "spec.rollout.waves: the last wave must be {percent: 100}"),
        ({"rollout": {"waves": [{"percent": 99}]}}, "spec.rollout.waves: the last wave must be {percent: 100}"),
        ({"rollout": {"waves": []}}, "should have at least 1 items"),
        ({"rollout": {"soak": "ten"}}, "spec.rollout.soak in body should match"),
        ({"rollout": {"maxUnavailable": "many"}}, "spec.rollout.maxUnavailable in body should match"),
        (
            {"rollout": {"maxUnavailable": -1}},
            "spec.rollout.maxUnavailable in body should be greater than or equal to 0",
        ),
        ({"selection": {"objective": "Speed"}}, 'supported values: "Latency", "Size", "Accuracy"'),
        ({"rollout": {"window": {"days": ["Monday"], "start": "01:00", "end": "02:00"}}}, "should match '^\\(Mon"),
    ],
)
def test_a_wrong_model_is_refused_with_a_sentence(
    control_plane: ControlPlane, namespace: str, spec: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ClusterError) as refusal:
        control_plane.apply([_model(**spec)], namespace)
    assert sentence.replace("\\", "") in str(refusal.value)


def test_the_registered_model_cannot_change(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.apply([_model()], namespace)
    with pytest.raises(ClusterError, match=r"spec\.source\.registeredModel cannot change: create another"):
        control_plane.apply([_model(source={"registeredModel": "other", "alias": "production"})], namespace)


def test_status_is_a_subresource(control_plane: ControlPlane, namespace: str) -> None:
    (stored,) = control_plane.apply([{**_model(), "status": {"observedGeneration": 7}}], namespace)
    assert "status" not in stored
    path = control_plane.api.path(_model(), namespace)
    headers = {"Content-Type": "application/merge-patch+json"}
    patched = control_plane.api.request(
        "PATCH",
        f"{path}/status",
        headers=headers,
        json={"status": {"observedGeneration": 1}, "spec": {"suspend": True}},
    )
    assert patched["status"] == {"observedGeneration": 1}
    assert patched["spec"]["suspend"] is False


def test_an_edge_node_holds_an_assignment_and_what_the_agent_reports(
    control_plane: ControlPlane, as_agent: Callable[[str], dict[str, str]]
) -> None:
    name = f"node-{secrets.token_hex(3)}"
    live = {"version": 7, "sequence": 1_780_000_000, "manifest": _DIGEST, "variant": "taylor-global-50-int8"}
    node = {
        "apiVersion": names.API_VERSION,
        "kind": "EdgeNode",
        "metadata": {"name": name},
        "spec": {"trust": _DIGEST, "models": [{"name": "a/nilm", "registeredModel": "nilm-identify", "live": live}]},
    }
    control_plane.apply([node])
    path = control_plane.api.path(node)
    headers = as_agent(name)
    served = {"version": 7, "manifest": _DIGEST, "variant": "taylor-global-50-int8"}
    status = {"models": [{"name": "a/nilm", "state": "Live", "live": served, "figures": {"samples": 3}}]}
    stored = control_plane.api.request("PATCH", f"{path}/status", headers=headers, json={"status": status})
    assert stored["status"] == status
    assert stored["spec"]["models"][0]["live"] == live
    wrong = {"models": [{"name": "a/nilm", "state": "Cooking"}]}
    with pytest.raises(ClusterError, match="Cooking"):
        control_plane.api.request("PATCH", f"{path}/status", headers=headers, json={"status": wrong})
    control_plane.api.delete([node])


def test_kubectl_get_shows_what_people_ask_for(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.apply([_model()], namespace)
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    table = control_plane.api.request(
        "GET", f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.COMPRESSED_MODELS}", headers=accept
    )
    columns = [column["name"] for column in table["columnDefinitions"] if not column["priority"]]
    counts = ["Exposed", "Live", "Total"]
    assert columns == ["Name", "Model", "Alias", "Version", "Good", *counts, "Ready", "Reason", "Age"]
    wide = [column["name"] for column in table["columnDefinitions"] if column["priority"]]
    assert wide == ["Message"]
    assert table["rows"][0]["cells"][:3] == ["nilm", "nilm-identify", "production"]
