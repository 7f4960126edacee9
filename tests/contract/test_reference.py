"""What release.json may say of a variant's answers to validation windows."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from edgewright_contract.release import Reference

GOOD: dict[str, Any] = {
    "windows": 30,
    "threshold": 0.6,
    "unknownRatio": 0.1,
    "confidence": {"edges": [0.5, 0.9], "counts": [5, 10, 15]},
    "meanWatts": {"edges": [], "counts": [30]},
}


def test_a_whole_one_is_taken_as_it_stands() -> None:
    found = Reference.model_validate(GOOD)
    assert found.model_dump(mode="json", by_alias=True) == GOOD


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"windows": 31}, "must count all 31 windows"),
        ({"threshold": 1.1}, "less than or equal to 1"),
        ({"confidence": {"edges": [0.5], "counts": [5, 10, 15]}}, "1 edges make 2 bins, not 3"),
        ({"confidence": {"edges": [0.9, 0.9], "counts": [5, 10, 15]}}, "edges must ascend"),
        ({"confidence": {"edges": [0.5, float("nan")], "counts": [5, 10, 15]}}, "finite number"),
        ({"meanWatts": {"edges": [], "counts": [-30]}}, "greater than or equal to 0"),
        ({"meanWatts": {"edges": list(range(16)), "counts": [30] + [0] * 16}}, "at most 15"),
        ({"windows": 0, "meanWatts": {"edges": [], "counts": [0]}}, "greater than or equal to 1"),
        ({"more": 1}, "Extra inputs are not permitted"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Reference.model_validate(GOOD | changed)
