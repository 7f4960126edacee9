"""Who may approve, who may switch approval off and who may change a namespace's reach, on the real API server."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from edgewright_contract import names
from edgewright_local.control_plane import ControlPlane

_RBAC = "rbac.authorization.k8s.io"
_APPROVAL = f"sha256:{'1' * 64}/0/1"
_OFF: dict[str, Any] = {"spec": {"rollout": {"approval": False}}}


@dataclass(frozen=True)
class Team:
    """A namespace with an editor and an approver; the administrator's client plays them all."""

    namespace: str
    client: httpx2.Client

    @property
    def models(self) -> str:
        return f"/apis/{names.API_VERSION}/namespaces/{self.namespace}/{names.COMPRESSED_MODELS}"

    @property
    def home(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}"

    def create(self, user: str | None, name: str, approval: bool, approved: str | None = None) -> httpx2.Response:
        metadata: dict[str, Any] = {"name": name}
        if approved is not None:
            metadata["annotations"] = {names.ANNOTATION_APPROVE: approved}
        spec = {"source": {"registeredModel": "nilm", "version": 1}, "rollout": {"approval": approval}}
        body = {"apiVersion": names.API_VERSION, "kind": "CompressedModel", "metadata": metadata, "spec": spec}
        return self.client.post(self.models, json=body, headers=_as(user))

    def patch(self, user: str | None, path: str, body: dict[str, Any]) -> httpx2.Response:
        headers = {"Content-Type": "application/merge-patch+json", **_as(user)}
        return self.client.patch(path, content=json.dumps(body), headers=headers)


def _as(user: str | None) -> dict[str, str]:
    return {"Impersonate-User": user} if user else {}


def _annotated(key: str, value: str | None) -> dict[str, Any]:
    return {"metadata": {"annotations": {key: value}}}


def _binding(name: str, role: str, user: str, namespace: str | None) -> dict[str, Any]:
    metadata = {"name": name} if namespace is None else {"name": name, "namespace": namespace}
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRoleBinding" if namespace is None else "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": _RBAC, "kind": "User", "name": user}],
    }


@pytest.fixture(scope="module")
def bindings(control_plane: ControlPlane, guarded: list[str]) -> Iterator[None]:
    """`keeper` may change every namespace; `warden` may do so and has the right of tenancy beside."""
    doors = ["namespaces", "namespaces/status", "namespaces/finalize"]
    rules = [{"apiGroups": [""], "resources": doors, "verbs": ["*"]}]
    role = {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": "test-keeper"}, "rules": rules}
    documents = [
        role,
        _binding("test-keeper", "test-keeper", "keeper", None),
        _binding("test-warden", "test-keeper", "warden", None),
        _binding("test-warden-tenancy", "edgewright-tenancy-admin", "warden", None),
    ]
    control_plane.apply(documents)
    yield
    control_plane.api.delete(documents)


@pytest.fixture
def team(control_plane: ControlPlane, bindings: None, namespace: str) -> Team:
    control_plane.apply(
        [
            _binding("editor", "edgewright-editor", "editor", namespace),
            _binding("approver", "edgewright-approver", "approver", namespace),
        ]
    )
    made = Team(namespace, control_plane.api.client)
    assert made.create(None, "nilm", True).status_code == 201
    path = f"{made.models}/nilm"
    probe = _annotated(names.ANNOTATION_APPROVE, "probe")
    control_plane.wait_for_policy(lambda: "may not approve" in made.patch("editor", path, probe).text)
    return made


def _refused(answer: httpx2.Response, *sentences: str) -> None:
    assert answer.status_code in (403, 422), answer.text
    for sentence in sentences:
        assert sentence in answer.json()["message"]


def test_an_editor_may_edit_and_not_approve(team: Team) -> None:
    path = f"{team.models}/nilm"
    assert team.patch("editor", path, {"spec": {"suspend": True}}).status_code == 200
    answer = team.patch("editor", path, _annotated(names.ANNOTATION_APPROVE, _APPROVAL))
    sentence = f"editor may not approve {team.namespace}/nilm: the annotation edgewright.dev/approve needs update on "
    _refused(answer, sentence + "compressedmodels/approval")


def test_an_approver_may(team: Team) -> None:
    path = f"{team.models}/nilm"
    approved = team.patch("approver", path, _annotated(names.ANNOTATION_APPROVE, _APPROVAL))
    assert approved.status_code == 200, approved.text
    # An approval that stands is neither the editor's to change nor to take back; other edits go on.
    for value in (f"{_APPROVAL}0", None):
        _refused(team.patch("editor", path, _annotated(names.ANNOTATION_APPROVE, value)), "may not approve")
    assert team.patch("editor", path, {"spec": {"suspend": True}}).status_code == 200


def test_approval_does_not_come_with_a_new_object(team: Team) -> None:
    _refused(team.create("editor", "other", True, _APPROVAL), "may not approve")
    assert team.create("editor", "other", True).status_code == 201


def test_the_status_is_no_back_door_to_approval(team: Team, control_plane: ControlPlane) -> None:
    path = f"{team.models}/nilm"
    team.patch(None, f"{path}/status", _annotated(names.ANNOTATION_APPROVE, _APPROVAL))
    found = control_plane.api.request("GET", path)["metadata"].get("annotations") or {}
    assert names.ANNOTATION_APPROVE not in found


def test_switching_approval_off_needs_the_right_to_approve(team: Team) -> None:
    path = f"{team.models}/nilm"
    _refused(team.patch("editor", path, _OFF), "editor may not switch spec.rollout.approval of", "off")
    gone = {"spec": {"rollout": {"approval": None}}}
    _refused(team.patch("editor", path, gone), "may not switch spec.rollout.approval")
    assert team.patch("approver", path, _OFF).status_code == 200
    assert team.patch("editor", path, {"spec": {"rollout": {"approval": True}}}).status_code == 200


def test_a_namespace_can_make_approval_a_duty(team: Team, control_plane: ControlPlane) -> None:
    assert team.create("editor", "free", False).status_code == 201
    duty = _annotated(names.ANNOTATION_REQUIRE_APPROVAL, "true")
    assert team.patch("warden", team.home, duty).status_code == 200
    sentence = f"namespace {team.namespace} asks for approval of every wave: set spec.rollout.approval: true"
    # The API server looks namespaces up in a cache of its own, which follows a moment later.
    edit = {"spec": {"suspend": True}}
    control_plane.wait_for_policy(lambda: sentence in team.patch("editor", f"{team.models}/free", edit).text)
    _refused(team.create("editor", "late", False), sentence)
    _refused(team.patch("approver", f"{team.models}/nilm", _OFF), sentence)
    assert team.create("editor", "late", True).status_code == 201


@pytest.mark.parametrize("key", [names.ANNOTATION_NODE_SELECTOR, names.ANNOTATION_REQUIRE_APPROVAL])
@pytest.mark.parametrize("door", ["", "/status", "/finalize"])
def test_who_may_change_a_namespace_may_not_change_its_reach(team: Team, key: str, door: str) -> None:
    assert team.patch("keeper", team.home, _annotated("example.org/owner", "me")).status_code == 200
    body = team.client.get(team.home).json()
    body["metadata"].setdefault("annotations", {})[key] = "site=everywhere"
    answer = team.client.put(team.home + door, json=body, headers=_as("keeper"))
    _refused(answer, f"keeper may not change {key} of namespace {team.namespace}", "nodeselectors.edgewright.dev")
    assert key not in team.client.get(team.home).json()["metadata"]["annotations"]


def test_the_right_of_tenancy_changes_it_and_nobody_else_takes_it_away(team: Team) -> None:
    body = _annotated(names.ANNOTATION_NODE_SELECTOR, "site=plant-a")
    assert team.patch("warden", team.home, body).status_code == 200
    taken = team.patch("keeper", team.home, _annotated(names.ANNOTATION_NODE_SELECTOR, None))
    _refused(taken, "may not change edgewright.dev/node-selector")


def test_a_namespace_is_not_born_with_reach(team: Team) -> None:
    name = f"born-{secrets.token_hex(3)}"
    metadata = {"name": name, "annotations": {names.ANNOTATION_NODE_SELECTOR: ""}}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    metadata["annotations"][names.ANNOTATION_NODE_SELECTOR] = "site=everywhere"
    answer = team.client.post("/api/v1/namespaces", json=body, headers=_as("keeper"))
    _refused(answer, f"keeper may not change edgewright.dev/node-selector of namespace {name}")
