"""`edgewright keys`: make, list, rotate, revoke; for people and for scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from edgewright_cli.main import app


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["keys", *map(str, arguments)])


def read(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout.splitlines()[-1]))


def by_state(found: dict[str, Any]) -> dict[str, list[str]]:
    states: dict[str, list[str]] = {}
    for key in found["keys"]:
        states.setdefault(key["state"], []).append(key["role"])
    return states


def test_new_rotate_revoke_and_list(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    made = read(run("new", folder, "--models", "nilm-*, kettle", "--json"))
    assert by_state(made) == {"trusted": ["permit", "release"], "root": ["root"]}
    (release,) = [key for key in made["keys"] if key["role"] == "release"]
    assert release["registeredModels"] == ["nilm-*", "kettle"]
    assert made["trust"]["sequence"] == 1
    again = run("new", folder, "--json")
    assert read(again) == made
    assert "Nothing was made" in again.stderr
    rotated = read(run("new", folder, "--rotate", "release", "--json"))
    assert by_state(rotated)["trusted"] == ["permit", "release", "release"]
    revoked = read(run("revoke", folder, release["id"][:12], "--json"))
    assert by_state(revoked)["revoked"] == ["release"]
    assert revoked["trust"]["sequence"] == 3
    assert read(run("list", folder, "--json")) == revoked
    table = run("list", folder)
    assert all(word in table.stdout for word in (release["id"][:16], "revoked", "sequence 3"))
    assert "PRIVATE KEY" not in table.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("list", "none"), "is no folder: run `edgewright keys new"),
        (("new", "none", "--rotate", "release"), "is no folder"),
        (("new", "keys", "--rotate", "root"), "--rotate is release or permit, not root"),
        (("revoke", "keys", "zz"), "is no key id"),
        (("revoke", "keys", "sha256:12"), "is no key id"),
        (("new", "keys", "--rotate", "permit", "--root", "gone.key"), "gone.key is missing"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("new", "keys").exit_code == 0
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert told in result.stderr
    assert "Traceback" not in result.stderr
