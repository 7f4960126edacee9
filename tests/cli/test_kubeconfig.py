"""A kubeconfig that is none is a sentence with its path, whatever stands in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgewright_cli import main
from edgewright_cli.cluster import DEMO_KUBECONFIG


@pytest.mark.parametrize("content", [b"\xff\xb2", b"{a: [", b"[]", b"clusters: 3\ncurrent-context: x\n", b""])
def test_a_file_that_is_no_kubeconfig_is_told_with_its_path(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "config"
    file.write_bytes(content)
    shown = CliRunner().invoke(main.app, ["nodes", "--kubeconfig", str(file)], env={"COLUMNS": "400"})
    assert isinstance(shown.exception, SystemExit), shown.exception
    assert shown.exit_code == 1
    assert "kubeconfig" in shown.output
    assert str(file) in shown.output.replace("\n", "")


def test_where_a_demo_runs_its_kubeconfig_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    told = CliRunner().invoke(main.app, ["nodes"])
    assert (told.exit_code, "that of the demo" in told.stderr) == (1, False)
    DEMO_KUBECONFIG.parent.mkdir(parents=True)
    DEMO_KUBECONFIG.touch()
    told = CliRunner().invoke(main.app, ["nodes"])
    assert told.exit_code == 1
    assert f"the demo here is {DEMO_KUBECONFIG}" in told.stderr
