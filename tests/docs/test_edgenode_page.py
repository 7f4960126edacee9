"""docs/edgenode.md names every field of the EdgeNode, and its example is a valid one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgewright_contract import crd, names
from edgewright_contract.edgenode import EdgeNodeSpec, EdgeNodeStatus

_PAGE = (Path(__file__).parents[2] / "docs" / "edgenode.md").read_text()


def _schema() -> dict[str, Any]:
    (definition,) = [found for found in crd.crds() if found["spec"]["names"]["kind"] == "EdgeNode"]
    return dict(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"])


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    for name, below in schema.get("properties", {}).items():
        yield name
        yield from _fields(below.get("items", below))


@pytest.mark.parametrize("part", ["spec", "status"])
def test_every_field_is_named(part: str) -> None:
    section = _PAGE[_PAGE.index(f"\n## {part}\n") :]
    named = {word for quoted in re.findall(r"`([^`]+)`", section) for word in re.split(r"[.\W]+", quoted)}
    assert set(_fields(_schema()[part])) - named == set()


def test_the_example_is_valid() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", _PAGE, re.MULTILINE | re.DOTALL)
    example = yaml.safe_load(block)
    assert (example["apiVersion"], example["kind"]) == (names.API_VERSION, "EdgeNode")
    EdgeNodeSpec.model_validate(example["spec"], extra="forbid")
    EdgeNodeStatus.model_validate(example["status"], extra="forbid")
