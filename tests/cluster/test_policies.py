"""What an agent's node-bound token may write, on the real API server with the roles and policies of deploy/k8s/base."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from edgewright_contract import names
from edgewright_local.cluster_api import ClusterApi
from edgewright_local.control_plane import ControlPlane

_NODES = f"/apis/{names.API_VERSION}/edgenodes"
_LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{names.NAMESPACE}/leases"
_MERGE = {"Content-Type": "application/merge-patch+json"}
_STATUS = {"status": {"models": []}}
_LEASE = {"spec": {"holderIdentity": "agent", "leaseDurationSeconds": 900}}


@dataclass(frozen=True)
class Fleet:
    mine: str
    other: str
    agent: ClusterApi
    unbound: ClusterApi


@pytest.fixture(scope="module")
def fleet(control_plane: ControlPlane, guarded: list[str]) -> Iterator[Fleet]:
    mine, other = (f"node-{secrets.token_hex(3)}" for _ in range(2))
    for name in (mine, other):
        control_plane.create_node(name)
        control_plane.api.request("POST", _NODES, json=_edge_node(name))
        control_plane.api.request("POST", _LEASES, json=_lease(name))
    # Roles wider than the shipped ones, so that a refusal is the policy's and not RBAC's.
    control_plane.apply(_wide_roles())
    agent = control_plane.api_for(control_plane.service_account_token(names.NAMESPACE, "agent", node=mine))
    unbound = control_plane.api_for(control_plane.service_account_token(names.NAMESPACE, "agent"))
    for probe in (
        lambda: _patch(agent, f"{_NODES}/{other}/status", _STATUS).status_code == 403,
        lambda: _patch(agent, f"{_NODES}/{mine}", {"spec": {"models": []}}).status_code == 403,
        lambda: _patch(agent, f"{_LEASES}/{other}", _LEASE).status_code == 403,
    ):
        control_plane.wait_for_policy(probe)
    yield Fleet(mine, other, agent, unbound)
    agent.close()
    unbound.close()
    control_plane.api.delete(_wide_roles())


def _edge_node(name: str) -> dict[str, Any]:
    return {"apiVersion": names.API_VERSION, "kind": "EdgeNode", "metadata": {"name": name}}


def _lease(name: str) -> dict[str, Any]:
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}


def _wide_roles() -> list[dict[str, Any]]:
    api = "rbac.authorization.k8s.io"
    rules = [
        {"apiGroups": [names.GROUP], "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]},
    ]
    subjects = [{"kind": "ServiceAccount", "name": "agent", "namespace": names.NAMESPACE}]
    role = {"apiVersion": f"{api}/v1", "kind": "ClusterRole", "metadata": {"name": "test-wide-agent"}, "rules": rules}
    reference = {"apiGroup": api, "kind": "ClusterRole", "name": "test-wide-agent"}
    binding = {"apiVersion": f"{api}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "test-wide-agent"}}
    return [role, {**binding, "roleRef": reference, "subjects": subjects}]


def _patch(door: ClusterApi, path: str, body: dict[str, Any]) -> httpx2.Response:
    return door.client.patch(path, headers=_MERGE, json=body)


def _refused(answer: httpx2.Response, sentence: str) -> None:
    assert answer.status_code == 403, answer.text
    assert sentence in answer.json()["message"]


def test_its_own_status(fleet: Fleet) -> None:
    answer = _patch(fleet.agent, f"{_NODES}/{fleet.mine}/status", _STATUS)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == {"models": []}


def test_not_the_status_of_another_node(fleet: Fleet) -> None:
    sentence = f"the token of node {fleet.mine} may not write the status of EdgeNode {fleet.other}"
    _refused(_patch(fleet.agent, f"{_NODES}/{fleet.other}/status", _STATUS), sentence)


def test_no_status_without_a_node_in_the_token(fleet: Fleet) -> None:
    _refused(_patch(fleet.unbound, f"{_NODES}/{fleet.mine}/status", _STATUS), "this token names no node")


def test_no_spec_not_even_its_own(fleet: Fleet) -> None:
    answer = _patch(fleet.agent, f"{_NODES}/{fleet.mine}", {"spec": {"models": []}})
    _refused(answer, "an edge agent writes only the status of its own EdgeNode: UPDATE of edgenodes is refused")


def test_it_creates_and_deletes_no_edge_node(fleet: Fleet, control_plane: ControlPlane) -> None:
    _refused(fleet.agent.client.post(_NODES, json=_edge_node("intruder")), "CREATE of edgenodes is refused")
    _refused(fleet.agent.client.delete(f"{_NODES}/{fleet.mine}"), "DELETE of edgenodes is refused")
    assert fleet.agent.client.delete(_NODES).status_code == 403
    for name in (fleet.mine, fleet.other):
        control_plane.api.request("GET", f"{_NODES}/{name}")


def test_its_own_lease(fleet: Fleet) -> None:
    answer = _patch(fleet.agent, f"{_LEASES}/{fleet.mine}", _LEASE)
    assert answer.status_code == 200, answer.text


def test_not_the_lease_of_another_node(fleet: Fleet) -> None:
    sentence = f"the token of node {fleet.mine} may not write Lease {fleet.other}"
    _refused(_patch(fleet.agent, f"{_LEASES}/{fleet.other}", _LEASE), sentence)


def test_no_lease_without_a_node_in_the_token(fleet: Fleet) -> None:
    _refused(_patch(fleet.unbound, f"{_LEASES}/{fleet.mine}", _LEASE), "this token names no node")


def test_it_creates_deletes_and_relabels_no_lease(fleet: Fleet) -> None:
    _refused(fleet.agent.client.post(_LEASES, json=_lease("intruder")), "CREATE is refused")
    _refused(fleet.agent.client.delete(f"{_LEASES}/{fleet.mine}"), "DELETE is refused")
    body = {"metadata": {"labels": {"a": "b"}}}
    _refused(_patch(fleet.agent, f"{_LEASES}/{fleet.mine}", body), "only the spec of its Lease")
