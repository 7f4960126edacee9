"""The pages of the two objects name every field, and with docs/rollout.md every reason, verdict and check."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from edgewright_contract.compressedmodel import CompressedModelSpec, DeletionPolicy, Objective, OnFailure
from edgewright_contract.compressedmodel_status import CompressedModelStatus, Outcome, Verdict
from edgewright_contract.conditions import ConditionType, Reason
from edgewright_contract.edgenode import EdgeNodeSpec, EdgeNodeStatus
from edgewright_operator.checks import Check

_DOCS = Path(__file__).parents[2] / "docs"
_OBJECT = (_DOCS / "compressedmodel.md").read_text()
_NODE = (_DOCS / "edgenode.md").read_text()
_ROLLOUT = (_DOCS / "rollout.md").read_text()
_PARTS = ("operator/src/edgewright_operator", "edge-agent/src/edgewright_agent")
_SOURCES = "".join(file.read_text() for part in _PARTS for file in sorted((_DOCS.parent / part).rglob("*.py")))
_OF_NODES = list(Reason)[list(Reason).index(Reason.SERVING) :]


def fields(model: type[BaseModel], path: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        here = f"{path}.{field.alias or name}"
        yield here
        for inner in _models(field.annotation):
            if inner.__name__ != "Condition":
                yield from fields(inner, here)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


_FIELDS = [*fields(CompressedModelSpec, "spec"), *fields(CompressedModelStatus, "status")]


def test_the_walk_finds_the_depths() -> None:
    assert {"spec.rollout.gates.maxP95Ratio", "status.hardwareClasses.candidates.p50Microseconds"} <= set(_FIELDS)


@pytest.mark.parametrize("path", _FIELDS)
def test_every_field_is_explained(path: str) -> None:
    assert f"| `{path}` |" in _OBJECT


_OF_NODE_OBJECTS = [*fields(EdgeNodeSpec, "spec"), *fields(EdgeNodeStatus, "status")]


def _row_of_a_node(path: str) -> bool:
    """A field of its own row, or one that the row of its parent names; figures have a table of their own."""
    part, _, name = path.partition(".")
    rows = _NODE.partition(f"\n## {part}\n")[2].partition("\n## ")[0].splitlines()
    parent, _, leaf = name.rpartition(".")
    if any(f"`{name}`" in row.split("|")[1] for row in rows if row.startswith("|")):
        return True
    if parent == "models.figures":
        return any(f"`{leaf}`" in row for row in rows)
    return bool(parent) and any(f"`{leaf}`" in row for row in rows if row.startswith(f"| `{parent}` |"))


def test_the_walk_of_the_nodes_page_can_fail() -> None:
    assert "status.models.figures.agreement" in _OF_NODE_OBJECTS
    assert not _row_of_a_node("status.models.live.sequence")  # named in spec only


@pytest.mark.parametrize("path", _OF_NODE_OBJECTS)
def test_every_field_of_a_node_is_explained(path: str) -> None:
    assert _row_of_a_node(path)


@pytest.mark.parametrize("reason", _OF_NODES)
def test_every_reason_of_a_node_is_explained(reason: str) -> None:
    assert f"| `{reason}` |" in _NODE


@pytest.mark.parametrize("word", [*Objective, *OnFailure, *DeletionPolicy, *Outcome])
def test_every_word_of_an_enumeration_is_explained(word: str) -> None:
    assert f"`{word}`" in _OBJECT


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason not in _OF_NODES])
def test_every_reason_is_explained(reason: str) -> None:
    assert f"| `{reason}` |" in _OBJECT


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_produced_somewhere(reason: Reason) -> None:
    assert f"Reason.{reason.name}" in _SOURCES


@pytest.mark.parametrize("word", [*Verdict, *Check])
def test_the_page_of_rollouts_explains_verdicts_and_checks(word: str) -> None:
    assert f"`{word}`" in _ROLLOUT


@pytest.mark.parametrize("kind", [ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED])
def test_every_condition_is_explained(kind: str) -> None:
    assert f"`{kind}`" in _OBJECT
