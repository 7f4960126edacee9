"""`kubectl edgewright …` against the real API server: what each command reads and writes, and what it refuses."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from edgewright_cli import kubectl
from edgewright_contract import names
from edgewright_local.control_plane import ControlPlane

BAD, GOOD = "sha256:" + "b" * 64, "sha256:" + "a" * 64
THEN = "2026-01-05T00:00:00Z"
PLURAL = f"/apis/{names.API_VERSION}/namespaces/{{}}/{names.COMPRESSED_MODELS}"


def ref(version: int, manifest: str) -> dict[str, Any]:
    return {"version": version, "sequence": version, "manifest": manifest}


def standing(reason: str, message: str, kind: str = "Ready") -> dict[str, Any]:
    facts = {"type": kind, "status": "False" if kind == "Ready" else "True", "reason": reason, "message": message}
    return facts | {"lastTransitionTime": THEN, "observedGeneration": 1}


class Place:
    """A namespace with one CompressedModel whose status the test writes as the operator would."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane, self.namespace = plane, namespace
        spec = {"source": {"registeredModel": "nilm", "alias": "production"}, "rollout": {"approval": True}}
        metadata = {"name": "nilm", "namespace": namespace}
        plane.apply([{"apiVersion": names.API_VERSION, "kind": "CompressedModel", "metadata": metadata, "spec": spec}])
        self.kubeconfig = plane.kubeconfig

    def object(self) -> dict[str, Any]:
        return dict(self.plane.api.request("GET", PLURAL.format(self.namespace) + "/nilm"))

    def status(self, *conditions: dict[str, Any], **status: Any) -> None:
        wave = {"index": 0, "of": 4, "size": 2, "exposed": 2, "since": THEN, "soakElapsedSeconds": 60}
        whole = {"release": ref(2, BAD), "lastGood": ref(1, GOOD), "wave": wave, "conditions": list(conditions)}
        merge = {"Content-Type": "application/merge-patch+json"}
        path = PLURAL.format(self.namespace) + "/nilm/status"
        self.plane.api.request("PATCH", path, json={"status": whole | status}, headers=merge)

    def run(self, *arguments: str, kubeconfig: Any = None) -> Result:
        where = [] if arguments[0] == "nodes" else ["-n", self.namespace]
        how = ["--kubeconfig", str(kubeconfig or self.kubeconfig)]
        return CliRunner().invoke(kubectl.app, [*arguments, *where, *how], catch_exceptions=False)

    def annotations(self) -> dict[str, str]:
        return dict(self.object()["metadata"].get("annotations") or {})


@pytest.fixture
def place(control_plane: ControlPlane, guarded: list[str], namespace: str) -> Place:
    return Place(control_plane, namespace)


@pytest.fixture
def edge_node(control_plane: ControlPlane, place: Place, as_agent: Callable[[str], dict[str, str]]) -> Iterator[str]:
    """One that serves release 2 and says so."""
    name = f"edge-{secrets.token_hex(3)}"
    path, key = f"/apis/{names.API_VERSION}/{names.EDGE_NODES}", f"{place.namespace}/nilm"
    live = ref(2, BAD) | {"variant": "base-int8"}
    spec = {"models": [{"name": key, "registeredModel": "nilm", "live": live, "since": THEN}]}
    body = {"apiVersion": names.API_VERSION, "kind": "EdgeNode", "metadata": {"name": name}, "spec": spec}
    control_plane.api.request("POST", path, json=body)
    served = {name: live[name] for name in ("version", "manifest", "variant")}
    figures = {"samples": 640, "effectiveSamples": 64, "replayed": 42, "errors": 3, "agreement": 0.31}
    told = {"name": key, "state": "Live", "target": BAD, "live": served, "figures": figures}
    headers = as_agent(name)
    control_plane.api.request("PATCH", f"{path}/{name}/status", json={"status": {"models": [told]}}, headers=headers)
    yield name
    control_plane.api.request("DELETE", f"{path}/{name}")


def test_why_gives_values_limits_samples_and_what_comes_next(place: Place) -> None:
    check = {"name": "agreement", "value": 0.31, "limit": 0.95, "samples": 42, "verdict": "Inconclusive"}
    gate = {"verdict": "Inconclusive", "at": THEN, "checks": [check | {"message": "which may still be chance"}]}
    row = {"name": "amd64-x", "nodes": 3, "variant": "base-int8", "reason": "best by Latency", "p95Milliseconds": 0.24}
    row |= {"candidates": [{"variant": "base-int8", "p50Microseconds": 120, "p95Microseconds": 240}]}
    counts = {"total": 3, "live": 1, "updating": 0, "failed": 0, "offline": 1, "neverSeen": 1}
    place.status(standing("GateInconclusive", "waits"), gate=gate, hardwareClasses=[row], counts=counts)
    said = place.run("why", "nilm").output
    assert "agreement: 0.31 against 0.95 from 42 samples: Inconclusive (which may still be chance)" in said
    assert "next: as soon as there are 40 effective samples wave 2 of 4 begins" in said
    assert "class amd64-x: 3 nodes, base-int8, p95 0.24 ms: best by Latency" in said
    assert "1 offline, 1 never seen" in said
    told = json.loads(place.run("why", "nilm", "--json").output.splitlines()[-1])
    assert told["status"]["gate"]["verdict"] == "Inconclusive"
    assert any(line.startswith("next: ") for line in told["why"])


def test_why_of_a_node_and_the_nodes(place: Place, edge_node: str) -> None:
    place.status(standing("Soaking", "soaks"))
    said = place.run("why", "nilm", "--node", edge_node).output
    assert "assigned: version 2, base-int8, manifest bbbbbbbbbbbb, since 2026-01-05T00:00:00Z" in said
    assert "640 windows, 64 effective samples (42 replayed), 3 errors" in said
    assert "agreement 0.310" in said
    assert edge_node in place.run("nodes").output


def test_an_object_that_nobody_has_seen_says_so(place: Place) -> None:
    assert "is it running?" in place.run("why", "nilm").output


def test_what_is_not_there_is_a_sentence_and_exit_code_1(place: Place) -> None:
    for arguments in (("why", "other"), ("why", "nilm", "--node", "nowhere"), ("pause", "other")):
        ended = place.run(*arguments)
        assert ended.exit_code == 1
        assert "not found" in ended.output
        assert "Traceback" not in ended.output


def test_pause_and_resume(place: Place) -> None:
    place.status(standing("RollingOut", "moves"))
    assert place.run("resume", "nilm").exit_code == 1
    assert place.run("pause", "nilm").exit_code == 0
    assert place.object()["spec"]["suspend"] is True
    assert json.loads(place.run("resume", "nilm", "--json").output)["done"].endswith("goes on")
    assert place.object()["spec"]["suspend"] is False


def test_resume_names_the_pause_of_a_gate(place: Place) -> None:
    paused = {"reason": "GateInconclusive", "message": "no data", "since": THEN, "generation": 1}
    place.status(standing("GateInconclusive", "no data", "Stalled"), paused=paused)
    assert place.run("resume", "nilm").exit_code == 0
    assert place.annotations()[names.ANNOTATION_RESUME] == THEN


@pytest.mark.parametrize(("size", "wave"), [(0, 0), (2, 1)])
def test_approve_names_manifest_wave_and_generation(place: Place, size: int, wave: int) -> None:
    place.status(standing("Soaking", "soaks"))
    refused = place.run("approve", "nilm")
    assert refused.exit_code == 1
    assert "does not wait for approval: Soaking" in refused.output
    place.status(standing("WaitingForApproval", "waits"), wave={"size": size})
    assert place.run("approve", "nilm").exit_code == 0
    generation = place.object()["metadata"]["generation"]
    assert place.annotations()[names.ANNOTATION_APPROVE] == f"{BAD}/{wave}/{generation}"


def test_who_may_edit_and_not_approve_is_told_which_right_lacks(control_plane: ControlPlane, place: Place) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "ed", "namespace": place.namespace}}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "ed", "namespace": place.namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edgewright-editor"},
        "subjects": [{"kind": "ServiceAccount", "name": "ed", "namespace": place.namespace}],
    }
    control_plane.apply([account, binding])
    place.status(standing("WaitingForApproval", "waits"))
    token = control_plane.service_account_token(place.namespace, "ed")
    ended = place.run("approve", "nilm", kubeconfig=control_plane.kubeconfig_for(token, "ed"))
    assert ended.exit_code == 1
    assert "compressedmodels/approval" in ended.output
    assert names.ANNOTATION_APPROVE not in place.annotations()


def test_rollback_asks_for_the_last_good_version_or_the_one_named(place: Place) -> None:
    place.status(standing("Soaking", "soaks"))
    assert json.loads(place.run("rollback", "nilm", "--json").output)["version"] == 1
    assert place.object()["spec"]["source"] == {"registeredModel": "nilm", "version": 1}
    assert place.run("rollback", "nilm", "--to", "7").exit_code == 0
    assert place.object()["spec"]["source"]["version"] == 7


def test_rollback_from_a_good_version_takes_the_good_one_before(place: Place) -> None:
    times = {"started": THEN, "ended": THEN}
    past = [
        {"version": version, "manifest": manifest, "outcome": outcome, "reason": "x", **times}
        for version, manifest, outcome in ((2, BAD, "Promoted"), (3, BAD, "Failed"), (1, GOOD, "Promoted"))
    ]
    place.status(standing("RolledOut", "done"), lastGood=ref(2, BAD), history=past)
    assert json.loads(place.run("rollback", "nilm", "--json").output)["version"] == 1


def test_rollback_with_nothing_to_go_back_to_is_a_sentence(place: Place) -> None:
    place.status(standing("RollingOut", "moves"), lastGood=None)
    ended = place.run("rollback", "nilm")
    assert ended.exit_code == 1
    assert "--to" in ended.output


def test_unquarantine_names_the_entry_and_asks_where_there_are_two(place: Place) -> None:
    entry = {"manifest": BAD, "reason": "agreement", "since": THEN}
    place.status(standing("Quarantined", "held"), quarantined=[entry, entry | {"manifest": GOOD}])
    asked = place.run("unquarantine", "nilm")
    assert asked.exit_code == 1
    assert "aaaaaaaaaaaa" in asked.output
    assert place.run("unquarantine", "nilm", "--manifest", "bbbb").exit_code == 0
    assert place.annotations()[names.ANNOTATION_UNQUARANTINE] == f"{BAD}/{THEN}"
    assert "agreement" in place.run("history", "nilm").output
    rows = json.loads(place.run("history", "nilm", "--json").output)
    assert len(rows["quarantined"]) == 2


def test_every_command_has_an_example() -> None:
    for command in kubectl.app.registered_commands:
        assert command.callback is not None
        assert "Example" in (command.callback.__doc__ or "")
