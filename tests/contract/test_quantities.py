"""Durations, sizes and shares of a fleet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_contract import quantities, strictjson


@pytest.mark.parametrize(("text", "expected"), [("50ms", 0.05), ("60s", 60.0), ("10m", 600.0), ("2h", 7200.0)])
def test_durations(text: str, expected: float) -> None:
    assert quantities.seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "10", "1.5h", "-1s", "1 m", "1s\n", "1111111s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        quantities.seconds(text)


@given(st.integers(1, 100), st.integers(1, 10_000))
def test_a_percentage_rounds_up_and_stays_in_the_fleet(percent: int, total: int) -> None:
    count = quantities.share_of(f"{percent}%", total, at_least=1)
    assert 1 <= count <= total
    assert count * 100 >= percent * total > (count - 1) * 100 or count == 1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"a":1,"a":2}', "twice"),
        (b'{"a":NaN}', "NaN"),
        (b"[1]", "a JSON object"),
        (b"\xff{}", "not JSON"),
        (b"[" * 40, "nested deeper"),
        (b'{"a":"' + b"x" * 200 + b'"}', "at most 100"),
    ],
)
def test_json_that_parsers_read_differently_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(strictjson.StrictJsonError, match=why):
        strictjson.loads(data, limit=100, what="test")
