"""What comes from the cluster is believed by form only: another form is a sentence, and brackets are no markup."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from edgewright_cli import nodes, rollout
from edgewright_cli.main import app

NAMES = {"name": "nilm", "namespace": "default"}
SPEC = {"source": {"registeredModel": "nilm", "alias": "production"}}
SERVES = {"version": 1, "manifest": "sha256:" + "a" * 64, "variant": "base-int8"}


def edge_node(name: str, **model: Any) -> dict[str, Any]:
    told = {"name": "default/nilm", "state": "Live", "reason": "Serving", "live": SERVES} | model
    return {"kind": "EdgeNode", "metadata": {"name": name}, "status": {"models": [told]}}


class Cluster:
    """A cluster that gives what it was given."""

    def __init__(self, model: dict[str, Any], *nodes: dict[str, Any]) -> None:
        self._model, self._nodes = {"kind": "CompressedModel", "metadata": NAMES, "spec": SPEC} | model, nodes

    def edge_nodes(self) -> list[dict[str, Any]]:
        return list(self._nodes)

    def edge_node(self, name: str) -> dict[str, Any]:
        return next(node for node in self._nodes if node["metadata"]["name"] == name)

    def compressed_model(self, *_: str) -> dict[str, Any]:
        return self._model


def run(monkeypatch: pytest.MonkeyPatch, cluster: Cluster, *arguments: str) -> Result:
    @contextmanager
    def opened(_: object) -> Iterator[Cluster]:
        yield cluster

    for module in (nodes, rollout):
        monkeypatch.setattr(module, "opened", opened)
    return CliRunner().invoke(app, [*arguments])


def test_a_node_that_cannot_be_read_is_named_and_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster({}, edge_node("edge-1", state="Dancing"), edge_node("edge-2"))
    result = run(monkeypatch, cluster, "nodes")
    assert result.exit_code == 1
    assert "error: EdgeNode edge-1: status.models.0.state: " in result.stderr
    assert "use the `edgewright` of the version that is installed there" in result.stderr
    assert "edge-2" in result.stdout
    told = json.loads(run(monkeypatch, cluster, "nodes", "--json").stdout.splitlines()[-1])
    assert [row["name"] for row in told["nodes"]] == ["edge-2"]
    assert len(told["unread"]) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["why", "nilm"], "CompressedModel default/nilm: status.conditions.0.type: "),
        (["history", "nilm"], "CompressedModel default/nilm: status.conditions.0.type: "),
        (["resume", "nilm"], "CompressedModel default/nilm: status.conditions.0.type: "),
        (["approve", "nilm"], "CompressedModel default/nilm: status.conditions.0.type: "),
        (["rollback", "nilm"], "CompressedModel default/nilm: status.conditions.0.type: "),
        (["unquarantine", "nilm"], "CompressedModel default/nilm: status.conditions.0.type: "),
    ],
)
def test_a_status_of_another_form_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    result = run(monkeypatch, Cluster({"status": {"conditions": [{"type": 7}]}}), *arguments)
    assert result.exit_code == 1, result.exception
    assert sentence in result.stderr


def test_a_node_of_another_form_is_a_sentence_for_why_too(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster({}, edge_node("edge-1", state="Dancing"))
    result = run(monkeypatch, cluster, "why", "nilm", "--node", "edge-1")
    assert result.exit_code == 1, result.exception
    assert "EdgeNode edge-1: status.models.0.state: " in result.stderr


@pytest.mark.parametrize("reason", ["[bold]loud[/bold]", "[/]", ":warning: [link=x]y"])
def test_what_looks_like_markup_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    past = {"version": 1, "manifest": SERVES["manifest"], "outcome": "Failed", "reason": reason}
    then = "2026-01-05T00:00:00Z"
    history = [past | {"started": then, "ended": then}]
    held = [{"manifest": SERVES["manifest"], "since": then, "reason": reason}]
    cluster = Cluster({"status": {"history": history, "quarantined": held}}, edge_node("edge-1", reason=reason))
    shown = run(monkeypatch, cluster, "history", "nilm").stdout
    assert shown.count(reason) == 2
    assert reason in run(monkeypatch, cluster, "nodes").stdout


def test_a_long_name_is_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "a-node-with-a-very-long-name." * 8
    assert f"\n{name} " in run(monkeypatch, Cluster({}, edge_node(name)), "nodes").stdout
