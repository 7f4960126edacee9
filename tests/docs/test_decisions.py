"""Each decision says what the matter was, what was decided and what was not, under a number of its own."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

_FILES = sorted((Path(__file__).parents[2] / "docs" / "decisions").glob("*.md"))


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.stem)
def test_it_has_its_parts(file: Path) -> None:
    text = file.read_text()
    number = int(file.name[:4])
    assert re.match(rf"# {number}\. \S", text), f"the first line is '# {number}. …'"
    places = [text.find(f"**{part}.**") for part in ("Context", "Decision", "Rejected")]
    assert -1 not in places
    assert places == sorted(places)


def test_no_number_is_taken_twice() -> None:
    assert [number for number, count in Counter(file.name[:4] for file in _FILES).items() if count > 1] == []
