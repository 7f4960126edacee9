"""docs/compressedmodel.md names every field of the object, and with docs/rollout.md every reason, verdict and check."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from edgewright_contract.compressedmodel import CompressedModelSpec, DeletionPolicy, Objective, OnFailure
from edgewright_contract.compressedmodel_status import CompressedModelStatus, Outcome, Verdict
from edgewright_contract.conditions import ConditionType, Reason
from edgewright_operator.checks import Check

_DOCS = Path(__file__).parents[2] / "docs"
_OBJECT = (_DOCS / "compressedmodel.md").read_text()
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
