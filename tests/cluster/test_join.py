"""`edgewright nodes join` against the real API server: its file lets a machine be that node, and nothing more."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgewright_agent import joining
from edgewright_agent.renewal import claims
from edgewright_cli import main
from edgewright_contract import names
from edgewright_local.control_plane import ControlPlane
from edgewright_pipelines import signing_keys

Join = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    signing_keys.ensure(tmp_path / "keys")
    (tmp_path / "gateway-ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    return tmp_path


@pytest.fixture
def join(control_plane: ControlPlane, guarded: list[str], folder: Path) -> Join:
    def run(node: str, **changes: str) -> Any:
        options = {
            "gateway": "https://gateway.example.org:8443",
            "gateway-ca": str(folder / "gateway-ca.pem"),
            "root-key": str(folder / "keys" / "root.pub"),
            "output": str(folder / "join.json"),
            "kubeconfig": str(control_plane.kubeconfig),
        } | {key.replace("_", "-"): value for key, value in changes.items()}
        given = [part for name, value in options.items() for part in (f"--{name}", value)]
        return CliRunner().invoke(main.app, ["nodes", "join", node, *given, "--json"])

    return run


def test_the_file_makes_a_machine_that_node(control_plane: ControlPlane, join: Join, folder: Path) -> None:
    node, other = (f"join-{secrets.token_hex(3)}" for _ in range(2))
    for name in (node, other):
        control_plane.create_node(name)
        kind = {"apiVersion": names.API_VERSION, "kind": "EdgeNode", "metadata": {"name": name}}
        control_plane.apply([kind])
    answer = join(node)
    assert answer.exit_code == 0, answer.output
    said = json.loads(answer.stdout.splitlines()[-1])
    file = folder / "join.json"
    assert said == {"node": node, "serviceAccount": f"agent-{node}", "file": str(file)}
    assert file.stat().st_mode & 0o777 == 0o600
    read = joining.parse(file.read_bytes())
    assert (read.node, read.api_url) == (node, control_plane.url)
    assert read.api_ca == control_plane.ca.read_text()
    assert read.root_key == (folder / "keys" / "root.pub").read_text()
    for token in (read.api_token, read.gateway_token):
        assert claims(token).node == node
        assert claims(token).expires - claims(token).issued <= 86_400
    door = control_plane.api_for(read.api_token)
    for name, code in ((node, 200), (other, 403)):
        path = f"/apis/{names.API_VERSION}/{names.EDGE_NODES}/{name}/status"
        headers = {"Content-Type": "application/merge-patch+json"}
        assert door.client.patch(path, headers=headers, json={"status": {"models": []}}).status_code == code
    door.close()


def test_joining_again_gives_new_tokens(control_plane: ControlPlane, join: Join, folder: Path) -> None:
    node = f"join-{secrets.token_hex(3)}"
    control_plane.create_node(node)
    found = []
    for _ in range(2):
        assert join(node).exit_code == 0
        found.append(joining.parse((folder / "join.json").read_bytes()).api_token)
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "404"),
        ({"root_key": "/nowhere/root.pub"}, "/nowhere/root.pub"),
        ({"gateway_ca": "/nowhere/ca.pem"}, "/nowhere/ca.pem"),
        ({"gateway_ca": sys.executable}, "is no PEM file"),
        ({"kubeconfig": "/nowhere/config"}, "no kubeconfig at /nowhere/config"),
    ],
)
def test_what_is_missing_is_said_and_nothing_is_written(
    changes: dict[str, Any], sentence: str, join: Join, folder: Path
) -> None:
    answer = join("no-such-node", **changes)
    assert answer.exit_code == 1
    assert sentence in answer.output
    assert "Traceback" not in answer.output
    assert not (folder / "join.json").exists()


def test_the_list_of_nodes_is_still_there(control_plane: ControlPlane, crds: list[str]) -> None:
    answer = CliRunner().invoke(main.app, ["nodes", "--kubeconfig", str(control_plane.kubeconfig), "--json"])
    assert answer.exit_code == 0, answer.output
    assert "nodes" in json.loads(answer.stdout.splitlines()[-1])
