"""`edgewright demo`: what it prints and how it ends, from a summary that is given here; tests/cluster/demo runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from edgewright_cli.main import app
from edgewright_local import demo as demonstration
from edgewright_local.errors import LocalPlatformError

ROOT = Path(__file__).parents[2]
CLASS = "amd64-6-167-avx2-avx512vnni-avxvnni-amxint8"


def summary(**requests: Any) -> dict[str, Any]:
    node = {"name": "edge-1", "hardwareClass": CLASS, "release": 2, "variant": "base-int8", "state": "Live"}
    variant = {"name": "base-int8", "bytes": 1234, "macroF1": 0.5, "p50Microseconds": 9.0, "p95Microseconds": 10.0}
    served = {"p95Milliseconds": 0.5, "bytes": 1111, "macroF1": 0.25}  # other than what training said of the name
    return {
        "nodes": [node | served],
        "variants": [variant],
        "synthetic": False,
        "requests": {"sent": 10, "failed": 0, "lastError": ""} | requests,
        "seconds": {"total": 1.0},
        "urls": {"mlflow": "http://127.0.0.1:1"},
        "containment": {"version": 3, "exposedNodes": ["edge-1"], "why": ["agreement [0]"]},
        "leftOut": [],
    }


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, observed: Any, *arguments: str) -> tuple[Result, list[Path]]:
    """The command's result, and what it asked to be stopped after it began."""
    stopped: list[Path] = []

    def stop(directory: Path) -> list[str]:
        stopped.append(directory)
        return []

    def demo(_: demonstration.Demo) -> Any:
        stopped.clear()
        if isinstance(observed, BaseException):
            raise observed
        return observed

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(demonstration, "stop", stop)
    monkeypatch.setattr(demonstration, "run", demo)
    return CliRunner().invoke(app, ["demo", "--workspace", str(tmp_path), *arguments]), stopped


def test_the_last_line_is_the_object_that_scripts_rely_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result, stopped = run(monkeypatch, tmp_path, summary(), "--exit", "--json")
    assert result.exit_code == 0
    (line,) = result.stdout.splitlines()
    assert json.loads(line) == {
        "nodes": [
            {
                "name": "edge-1",
                "hardwareClass": CLASS,
                "release": 2,
                "variant": "base-int8",
                "state": "Live",
                "p95Milliseconds": 0.5,
            }
        ],
        "variants": [{"name": "base-int8", "bytes": 1234, "macroF1": 0.5, "p50Microseconds": 9.0}],
        "requests": {"sent": 10, "failed": 0},
        "seconds": {"total": 1.0},
    }
    assert stopped == [tmp_path / "demo"]


def test_people_see_the_table_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result, _ = run(monkeypatch, tmp_path, summary(), "--exit")
    row = next(line for line in result.stdout.splitlines() if line.startswith("edge-1"))
    assert row.split() == ["edge-1", CLASS, "2", "base-int8", "1,111", "0.500", "0.250", "Live"]
    assert "  agreement [0]" in result.stdout
    assert "requests: 10 sent, 0 failed\n" in result.stdout


@pytest.mark.parametrize(
    ("requests", "told"),
    [({"failed": 1, "lastError": "edge-1: 503"}, "1 of 10 requests failed"), ({"sent": 0}, "0 of 0 requests failed")],
)
def test_a_failed_request_or_none_at_all_fails_the_demo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, requests: dict[str, Any], told: str
) -> None:
    result, stopped = run(monkeypatch, tmp_path, summary(**requests), "--exit", "--json")
    assert result.exit_code == 1
    assert f"error: {told}" in result.stderr
    assert stopped == [tmp_path / "demo"]


@pytest.mark.parametrize(
    ("problem", "code", "sentence"),
    [(LocalPlatformError("etcd did not start"), 1, "error: etcd did not start"), (KeyboardInterrupt(), 130, "ending")],
)
def test_what_goes_wrong_on_the_way_ends_everything(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, problem: BaseException, code: int, sentence: str
) -> None:
    result, stopped = run(monkeypatch, tmp_path, problem)
    assert result.exit_code == code
    assert sentence in result.stderr
    assert stopped == [tmp_path / "demo"]


def test_outside_a_clone_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 2
    assert "change into its folder first" in result.stderr
