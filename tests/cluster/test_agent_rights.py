"""Everything that a stolen agent's token could ask of the real API server: each resource, verb, namespace and name.

The shipped roles and policies alone decide here (test_policies.py widens the roles to see the policies by themselves).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from edgewright_contract import names
from edgewright_local.cluster_api import ClusterApi
from edgewright_local.control_plane import ControlPlane

_NODE_PROFILE = Path(__file__).parents[2] / "deploy" / "k8s" / "systemd" / "node.yaml"
_NAMESPACES = (names.NAMESPACE, "default", "kube-system")
# What Kubernetes itself lets every account do: ask about itself, and read the public roots of trust.
_SELF = ("selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews")
_PUBLIC = ("clustertrustbundles",)
_EDGE_NODES = f"/apis/{names.API_VERSION}/edgenodes"
_LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{names.NAMESPACE}/leases"
_MERGE = {"Content-Type": "application/merge-patch+json"}


@dataclass(frozen=True)
class Ask:
    """One request: `verb` as RBAC calls it."""

    verb: str
    path: str

    def of(self, door: ClusterApi) -> httpx2.Response:
        method = {"list": "GET", "watch": "GET", "get": "GET", "create": "POST", "update": "PUT", "patch": "PATCH"}
        arguments: dict[str, Any] = {"params": {"watch": "true", "timeoutSeconds": "1"}} if self.verb == "watch" else {}
        if self.verb in ("create", "update", "patch"):
            arguments = {"content": "{}", "headers": _MERGE if self.verb == "patch" else {}}
        return door.client.request(method.get(self.verb, "DELETE"), self.path, **arguments)


@dataclass(frozen=True)
class Stolen:
    """A node's token in foreign hands."""

    mine: str
    other: str
    door: ClusterApi


@pytest.fixture(scope="module")
def nodes(control_plane: ControlPlane, guarded: list[str]) -> tuple[str, str]:
    made = tuple(f"node-{secrets.token_hex(3)}" for _ in range(2))
    for name in made:
        control_plane.create_node(name)
        control_plane.api.request("POST", _EDGE_NODES, json=_object(names.API_VERSION, "EdgeNode", name))
        control_plane.api.request("POST", _LEASES, json=_object("coordination.k8s.io/v1", "Lease", name))
    return made[0], made[1]


@pytest.fixture(scope="module")
def pod(control_plane: ControlPlane, nodes: tuple[str, str]) -> Iterator[Stolen]:
    """The DaemonSet's account, bound to the first node."""
    yield from _stolen(control_plane, "agent", nodes)


@pytest.fixture(scope="module")
def service(control_plane: ControlPlane, nodes: tuple[str, str]) -> Iterator[Stolen]:
    """The account of the systemd profile, made for the first node."""
    documents = list(yaml.safe_load_all(_NODE_PROFILE.read_text().replace("NODE", nodes[0])))
    control_plane.apply(documents)
    yield from _stolen(control_plane, f"agent-{nodes[0]}", nodes)
    control_plane.api.delete(documents)


def _stolen(plane: ControlPlane, account: str, nodes: tuple[str, str]) -> Iterator[Stolen]:
    door = plane.api_for(plane.service_account_token(names.NAMESPACE, account, node=nodes[0]))
    foreign = Ask("patch", f"{_EDGE_NODES}/{nodes[1]}/status")
    plane.wait_for_policy(lambda: foreign.of(door).status_code == 403)
    plane.wait_for_policy(lambda: Ask("patch", f"{_EDGE_NODES}/{nodes[0]}/status").of(door).status_code == 200)
    yield Stolen(*nodes, door)
    door.close()


def _object(version: str, kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}}


def _resources(api: ClusterApi) -> Iterator[tuple[str, dict[str, Any]]]:
    """Root path and discovery entry of every resource and subresource that the server knows."""
    groups = api.request("GET", "/apis")["groups"]
    for root in ("/api/v1", *(f"/apis/{version['groupVersion']}" for group in groups for version in group["versions"])):
        for resource in api.request("GET", root)["resources"]:
            yield root, resource


def _asks(root: str, resource: dict[str, Any], objects: Iterable[str]) -> Iterator[Ask]:
    """Every verb on a resource, in each namespace and for each name."""
    kind, _, part = resource["name"].partition("/")
    for namespace in _NAMESPACES if resource["namespaced"] else ("",):
        top = f"{root}/namespaces/{namespace}/{kind}" if namespace else f"{root}/{kind}"
        for name in objects:
            path = f"{top}/{name}/{part}" if part else f"{top}/{name}"
            yield from (Ask(verb, path) for verb in ("get", "update", "patch", "delete"))
            if part:
                yield Ask("create", path)
        if not part:
            yield from (Ask(verb, top) for verb in ("list", "watch", "create", "deletecollection"))
    if resource["namespaced"] and not part:
        yield from (Ask(verb, f"{root}/{kind}") for verb in ("list", "watch"))


def _let_through(stolen: Stolen, api: ClusterApi) -> set[Ask]:
    """Everything that was answered by anything but 403, apart from what every account may ask about itself."""
    asks = [
        ask
        for root, resource in _resources(api)
        if resource["name"] not in _SELF
        for ask in _asks(root, resource, (stolen.mine, stolen.other))
        if not (resource["name"] in _PUBLIC and ask.verb in ("get", "list", "watch"))
    ]
    assert len(asks) > 1500
    return {ask for ask in asks if ask.of(stolen.door).status_code != 403}


def test_a_pod_reads_edge_nodes_and_writes_its_own_two_objects(pod: Stolen, control_plane: ControlPlane) -> None:
    assert _let_through(pod, control_plane.api) == {
        Ask("watch", _EDGE_NODES),
        Ask("patch", f"{_EDGE_NODES}/{pod.mine}/status"),
        Ask("patch", f"{_LEASES}/{pod.mine}"),
    }


def test_a_service_sees_nothing_of_others_and_asks_for_its_own_token(
    service: Stolen, control_plane: ControlPlane
) -> None:
    assert _let_through(service, control_plane.api) == {
        Ask("patch", f"{_EDGE_NODES}/{service.mine}/status"),
        Ask("patch", f"{_LEASES}/{service.mine}"),
    }
    for name, code in ((service.mine, 200), (service.other, 403)):
        query = {"watch": "true", "timeoutSeconds": "1", "fieldSelector": f"metadata.name={name}"}
        assert service.door.client.get(_EDGE_NODES, params=query).status_code == code
    own = f"/api/v1/namespaces/{names.NAMESPACE}/serviceaccounts/agent-{service.mine}/token"
    assert "bound to its own Node" in Ask("create", own).of(service.door).text  # past the role, held by the policy


@pytest.mark.parametrize("account", ["operator", "gateway"])
def test_no_part_reads_secrets_or_gives_rights(account: str, control_plane: ControlPlane, guarded: list[str]) -> None:
    door = control_plane.api_for(control_plane.service_account_token(names.NAMESPACE, account))
    for path in (
        f"/api/v1/namespaces/{names.NAMESPACE}/secrets",
        f"/api/v1/namespaces/{names.NAMESPACE}/configmaps",
        f"/api/v1/namespaces/{names.NAMESPACE}/pods",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{names.NAMESPACE}/roles",
    ):
        for verb in ("list", "create", "deletecollection"):
            assert Ask(verb, path).of(door).status_code == 403, (verb, path)
    token = f"/api/v1/namespaces/{names.NAMESPACE}/serviceaccounts/agent/token"
    assert Ask("create", token).of(door).status_code == 403
    door.close()


def test_the_operator_follows_namespaces_and_asks_for_none_by_name(
    control_plane: ControlPlane, guarded: list[str]
) -> None:
    door = control_plane.api_for(control_plane.service_account_token(names.NAMESPACE, "operator"))
    assert Ask("list", "/api/v1/namespaces").of(door).status_code == 200
    assert Ask("get", f"/api/v1/namespaces/{names.NAMESPACE}").of(door).status_code == 403
    door.close()
