"""A node outside a pod renews its own token, on the real API server; each step beside it is refused."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from edgewright_contract import names
from edgewright_local.cluster_api import ClusterApi
from edgewright_local.control_plane import ISSUER, ControlPlane

_NODE_PROFILE = Path(__file__).parents[2] / "deploy" / "k8s" / "systemd" / "node.yaml"
_ACCOUNTS = f"/api/v1/namespaces/{names.NAMESPACE}/serviceaccounts"
_DAY = 86_400


@dataclass(frozen=True)
class Joined:
    node: str
    uid: str
    door: ClusterApi

    def ask(self, account: str | None = None, **changes: Any) -> httpx2.Response:
        """TokenRequest as the agent makes it, with what a test changes; None takes a field away."""
        reference = {"apiVersion": "v1", "kind": "Node", "name": self.node, "uid": self.uid}
        spec = {"expirationSeconds": 30 * _DAY, "boundObjectRef": reference} | changes
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        given = {"spec": {key: value for key, value in spec.items() if value is not None}}
        return self.door.client.post(f"{_ACCOUNTS}/{account or f'agent-{self.node}'}/token", json=body | given)


@pytest.fixture(scope="module")
def joined(control_plane: ControlPlane, guarded: list[str]) -> Iterator[Joined]:
    node, other = (f"node-{secrets.token_hex(3)}" for _ in range(2))
    control_plane.create_node(other)
    uid = control_plane.create_node(node)["metadata"]["uid"]
    text = _NODE_PROFILE.read_text()
    documents = [found for name in (node, other) for found in yaml.safe_load_all(text.replace("NODE", name))]
    control_plane.apply([*documents, *_any_token()])
    door = control_plane.api_for(control_plane.service_account_token(names.NAMESPACE, f"agent-{node}", node=node))
    made = Joined(node, uid, door)
    control_plane.wait_for_policy(lambda: made.ask(boundObjectRef=None).status_code == 403)
    yield made
    door.close()
    control_plane.api.delete([*documents, *_any_token()])


def _any_token() -> list[dict[str, Any]]:
    """A right that nobody ships, for every account of the namespace: what is refused then, the policy refuses."""
    api = "rbac.authorization.k8s.io"
    metadata = {"name": "test-any-token", "namespace": names.NAMESPACE}
    rules = [{"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]}]
    group = {"apiGroup": api, "kind": "Group", "name": f"system:serviceaccounts:{names.NAMESPACE}"}
    reference = {"apiGroup": api, "kind": "Role", "name": "test-any-token"}
    role = {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": metadata, "rules": rules}
    binding = {"apiVersion": f"{api}/v1", "kind": "RoleBinding", "metadata": metadata}
    return [role, {**binding, "roleRef": reference, "subjects": [group]}]


def _refused(answer: httpx2.Response, sentence: str) -> None:
    assert answer.status_code == 403, answer.text
    assert sentence in answer.json()["message"]


def _claims(answer: httpx2.Response) -> dict[str, Any]:
    assert answer.status_code == 201, answer.text
    payload = answer.json()["status"]["token"].split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return found


def test_it_renews_both_of_its_tokens(joined: Joined) -> None:
    k3s = [ISSUER, "k3s"]  # the two that a K3s gives where none is asked for
    for audiences, wanted in ((None, [ISSUER]), (k3s, k3s), ([names.GATEWAY_AUDIENCE],) * 2):
        claims = _claims(joined.ask(audiences=audiences))
        assert claims["aud"] == wanted
        assert claims["kubernetes.io"]["node"] == {"name": joined.node, "uid": joined.uid}
        assert claims["exp"] - claims["iat"] <= 30 * _DAY


def test_the_renewed_token_renews_itself(joined: Joined, control_plane: ControlPlane) -> None:
    door = control_plane.api_for(joined.ask().json()["status"]["token"])
    assert Joined(joined.node, joined.uid, door).ask().status_code == 201
    door.close()


def test_not_for_another_account(joined: Joined) -> None:
    for account in ("operator", "gateway", "agent"):
        sentence = f"of its own ServiceAccount only, not of {names.NAMESPACE}:{account}"
        _refused(joined.ask(account), sentence)


def test_not_bound_to_anything_else(joined: Joined, control_plane: ControlPlane) -> None:
    sentence = f"only a token bound to its own Node: name {joined.node}, uid {joined.uid}"
    _refused(joined.ask(boundObjectRef=None), sentence)
    reference = {"apiVersion": "v1", "kind": "Node", "name": joined.node}
    foreign = f"node-{secrets.token_hex(3)}"
    uid = control_plane.create_node(foreign)["metadata"]["uid"]
    for changed in ({}, {"name": foreign, "uid": uid}, {"uid": "00000000-0000-0000-0000-000000000000"}):
        answer = joined.ask(boundObjectRef=reference | changed)
        assert answer.status_code in (403, 409), answer.text  # a UID that no Node has is a conflict before any policy
        assert answer.status_code == 409 or sentence in answer.json()["message"]


def test_not_for_other_readers_nor_for_two(joined: Joined) -> None:
    _refused(joined.ask(audiences=["https://vault.example.org"]), "for the API server or for edgewright-gateway")
    _refused(joined.ask(audiences=[ISSUER, names.GATEWAY_AUDIENCE]), "not for both: ask twice")


def test_not_for_longer_than_thirty_days(joined: Joined) -> None:
    _refused(joined.ask(expirationSeconds=30 * _DAY + 1), "at most 30 days")


def test_the_account_of_the_pods_renews_nothing(joined: Joined, control_plane: ControlPlane) -> None:
    door = control_plane.api_for(control_plane.service_account_token(names.NAMESPACE, "agent", node=joined.node))
    pod = Joined(joined.node, joined.uid, door)
    _refused(pod.ask("agent"), "renewed by the ServiceAccount of one node only")
    _refused(pod.ask(), f"(edgewright:agent-{joined.node}), not by system:serviceaccount:edgewright:agent")
    door.close()


def test_a_token_without_a_node_renews_nothing(joined: Joined, control_plane: ControlPlane) -> None:
    token = control_plane.service_account_token(names.NAMESPACE, f"agent-{joined.node}")
    door = control_plane.api_for(token)
    _refused(Joined(joined.node, joined.uid, door).ask(), "this one names no node: run edgewright nodes join")
    door.close()


def test_others_are_not_held_by_this_policy(joined: Joined, control_plane: ControlPlane) -> None:
    assert control_plane.service_account_token(names.NAMESPACE, "operator", seconds=60 * _DAY)
