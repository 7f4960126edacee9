"""What the other tests of this folder rely on, tried on the real API server."""

from __future__ import annotations

import secrets

import httpx2
import pytest

from edgewright_local.cluster_api import ClusterApi
from edgewright_local.control_plane import ControlPlane
from edgewright_local.errors import ClusterError


def _definition(group: str) -> dict[str, object]:
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


def test_apply_puts_definitions_first_and_waits_for_them(control_plane: ControlPlane, namespace: str) -> None:
    group = f"g{secrets.token_hex(3)}.example.org"
    widget = {"apiVersion": f"{group}/v1", "kind": "Widget", "metadata": {"name": "one"}, "spec": {"size": 3}}
    stored = control_plane.apply([widget, _definition(group)], namespace)
    assert [document["kind"] for document in stored] == ["CustomResourceDefinition", "Widget"]
    read = control_plane.api.request("GET", control_plane.api.path(widget, namespace))
    assert read["spec"] == {"size": 3}
    control_plane.api.delete([widget, _definition(group)], namespace)
    with pytest.raises(ClusterError, match="404"):
        control_plane.api.request("GET", f"/apis/{group}/v1/namespaces/{namespace}/widgets/one")


def test_apply_of_an_unknown_kind_says_what_is_missing(control_plane: ControlPlane) -> None:
    with pytest.raises(ClusterError, match=r"knows no kind Gadget in example\.org/v9"):
        control_plane.apply([{"apiVersion": "example.org/v9", "kind": "Gadget", "metadata": {"name": "g"}}])


def test_a_refused_object_quotes_the_server(control_plane: ControlPlane, namespace: str) -> None:
    wrong = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a key": "x"}}
    with pytest.raises(ClusterError, match="a valid config key"):
        control_plane.apply([wrong], namespace)


def test_a_token_is_bound_to_its_node_and_audience(control_plane: ControlPlane, namespace: str) -> None:
    node = f"node-{secrets.token_hex(3)}"
    uid = control_plane.create_node(node, {"edgewright.dev/agent": "true"})["metadata"]["uid"]
    control_plane.api.create_service_account(namespace, "agent")
    token = control_plane.service_account_token(namespace, "agent", "edgewright-gateway", node)
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": ["edgewright-gateway"]},
    }
    status = control_plane.api.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", json=review)["status"]
    assert status["authenticated"] is True
    assert status["user"]["extra"]["authentication.kubernetes.io/node-name"] == [node]
    assert status["user"]["extra"]["authentication.kubernetes.io/node-uid"] == [uid]
    door = control_plane.api_for(token)  # another audience: not for the API server itself
    assert door.client.get("/api").status_code == httpx2.codes.UNAUTHORIZED
    door.close()


def test_a_service_account_has_no_rights_of_its_own(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.api.create_service_account(namespace, "nobody")
    door = control_plane.api_for(control_plane.service_account_token(namespace, "nobody"))
    with pytest.raises(ClusterError, match=r"403 .*cannot list resource"):
        door.request("GET", f"/api/v1/namespaces/{namespace}/secrets")
    door.close()


def test_without_a_token_nothing_is_answered(control_plane: ControlPlane) -> None:
    door = ClusterApi(control_plane.url, control_plane.ca, "wrong")
    assert door.client.get("/version").status_code == httpx2.codes.UNAUTHORIZED
    door.close()


def test_a_policy_is_waited_for(control_plane: ControlPlane, namespace: str) -> None:
    api, name = control_plane.api, f"p{secrets.token_hex(3)}.example.org"
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
                ],
            },
            "validations": [{"expression": "object.metadata.name != 'no'", "message": "not under this name"}],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }
    refused = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "no"}}
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    try:
        api.apply([policy, binding])

        def probe() -> bool:
            return "not under this name" in api.client.post(path, params={"dryRun": "All"}, json=refused).text

        assert api.wait_for_policy(probe) < 30.0
        with pytest.raises(ClusterError, match="not under this name"):
            api.request("POST", path, json=refused)
    finally:
        api.delete([policy, binding])


def test_the_kubeconfig_works_with_the_clients_that_people_use(control_plane: ControlPlane) -> None:
    import kubernetes.client
    import kubernetes.config

    kubernetes.config.load_kube_config(str(control_plane.kubeconfig))  # type: ignore[no-untyped-call]
    with kubernetes.client.ApiClient() as client:
        version = kubernetes.client.VersionApi(client).get_code()
    assert version.git_version == "v1.37.2"


def test_secrets_are_the_owners_only(control_plane: ControlPlane) -> None:
    other = control_plane.kubeconfig_for("token", "system:serviceaccount:a/../b")
    assert other.parent == control_plane.directory / "kubeconfigs"
    pki = list((control_plane.directory / "pki").iterdir())
    assert len(pki) >= 10
    assert {path.stat().st_mode & 0o777 for path in [*pki, control_plane.kubeconfig, other]} == {0o600}
