"""The example of docs/edgenode.md is a valid one; that the page names every field: tests/contract/test_pages.py."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from edgewright_contract import names
from edgewright_contract.edgenode import EdgeNodeSpec, EdgeNodeStatus

_PAGE = (Path(__file__).parents[2] / "docs" / "edgenode.md").read_text()


def test_the_example_is_valid() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", _PAGE, re.MULTILINE | re.DOTALL)
    example = yaml.safe_load(block)
    assert (example["apiVersion"], example["kind"]) == (names.API_VERSION, "EdgeNode")
    EdgeNodeSpec.model_validate(example["spec"], extra="forbid")
    EdgeNodeStatus.model_validate(example["status"], extra="forbid")
