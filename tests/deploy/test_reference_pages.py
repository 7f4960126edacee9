"""Every reason, condition, state and verdict is explained on one of the two reference pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright_contract.compressedmodel_status import Verdict
from edgewright_contract.conditions import ConditionType, Reason
from edgewright_contract.edgenode import ModelState

_DOCS = Path(__file__).parents[2] / "docs"
_WORDS = [*Reason, *ConditionType, *ModelState, *Verdict]


@pytest.mark.parametrize("word", _WORDS)
def test_the_word_is_explained(word: str) -> None:
    pages = "".join((_DOCS / name).read_text() for name in ("compressedmodel.md", "edgenode.md"))
    assert f"`{word}`" in pages
