"""Every command and every bench speaks to scripts; every one that takes long has a short form."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer.main
from typer.testing import CliRunner

from edgewright_agent import main as agent
from edgewright_cli import data, keys, kubectl, main, release

ROOT = Path(__file__).parents[2]
BENCHES = sorted(file for file in (ROOT / "bench").glob("*.py"))
AT_ONCE = {
    "release list", "release show", "release verify", "release promote", "release renew",
    "keys new", "keys list", "keys revoke",
    "nodes", "nodes join",
    "why", "history", "pause", "resume", "approve", "rollback", "unquarantine",
}  # fmt: skip
"""A few requests or files: seconds. Whatever is not named here has --quick."""


def commands(app: typer.Typer) -> dict[str, click.Command]:
    """Every command that can be typed, by its words."""

    def walk(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
        if words and (command.callback is not None) and not getattr(command, "no_args_is_help", False):
            yield " ".join(words), command
        for name, below in getattr(command, "commands", {}).items():
            yield from walk(below, (*words, name))

    return dict(walk(typer.main.get_group(app), ()))


COMMANDS = commands(main.app)
GROUPS = {(): main.app, ("data",): data.app, ("keys",): keys.app, ("release",): release.app, ("kubectl",): kubectl.app}
AGENT = ([], ["run"], ["hardware"], ["install"])


def options(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_json_and_examples_and_quick_unless_it_ends_at_once(name: str) -> None:
    command = COMMANDS[name]
    assert "--json" in options(command)
    assert "Example" in (command.help or "")
    assert ("--quick" in options(command)) == (name not in AT_ONCE)


def test_the_walk_finds_commands_of_commands_and_the_plugin_has_no_other_ones() -> None:
    assert {"demo", "train", "data fetch", "nodes", "nodes join"} <= COMMANDS.keys()
    assert COMMANDS.keys() >= AT_ONCE
    assert COMMANDS.keys() >= commands(kubectl.app).keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_shown_in_words(name: str) -> None:
    shown = CliRunner().invoke(main.app, [*name.split(), "--help"])
    assert shown.exit_code == 0, shown.output
    assert "edgewright" in shown.stdout


@pytest.mark.parametrize("app", GROUPS.values(), ids=[" ".join(words) or "edgewright" for words in GROUPS])
def test_a_group_of_commands_has_examples(app: typer.Typer) -> None:
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0, shown.output
    assert "Example" in shown.stdout


@pytest.mark.parametrize("words", AGENT, ids=lambda words: " ".join(words) or "edgewright-agent")
def test_the_agent_has_examples(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["edgewright-agent", *words, "--help"])
    with pytest.raises(SystemExit, match="0"):
        agent.main()
    assert "example" in capsys.readouterr().out.lower()


@pytest.mark.parametrize("bench", BENCHES, ids=lambda bench: bench.stem)
def test_a_bench_has_both_and_says_what_quick_leaves_out(bench: Path) -> None:
    command = [sys.executable, bench, "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "COLUMNS": "200"})
    assert shown.returncode == 0, shown.stderr
    assert {"--quick", "--json"} <= set(shown.stdout.replace("[", " ").replace("]", " ").replace(",", " ").split())


def test_the_table_of_the_benches_names_each_and_the_makefile_runs_each() -> None:
    table = (ROOT / "bench/README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    listed = next(line for line in makefile.splitlines() if line.lstrip("\t@").startswith("for bench in"))
    assert [bench.name for bench in BENCHES if f"| `{bench.name}` |" not in table] == []
    assert {bench.stem for bench in BENCHES} <= set(listed.replace(";", " ").split())
