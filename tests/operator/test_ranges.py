"""The Range header, read as RFC 9110 says, for any text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_operator.gateway import ranges

HEADERS = st.one_of(
    st.text(max_size=40),
    st.from_regex(r"bytes=[0-9]{0,30}-[0-9]{0,30}", fullmatch=True),
    st.from_regex(r"bytes=[0-9]{0,3}-[0-9]{0,3}(,[0-9]{0,3}-[0-9]{0,3})?", fullmatch=True),
)


@given(HEADERS, st.integers(0, 500))
def test_a_part_lies_in_the_file_and_nothing_else_is_raised(header: str, size: int) -> None:
    try:
        part = ranges.part(header, size)
    except ranges.Unsatisfiable:
        return
    assert part is None or 0 <= part.start < part.end <= size


@given(st.integers(1, 1000), st.data())
def test_what_is_asked_is_what_is_given(size: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, size - 1))
    last = data.draw(st.integers(first, size + 10))
    assert ranges.part(f"bytes={first}-{last}", size) == ranges.Part(first, min(last + 1, size))
    count = data.draw(st.integers(1, size + 10))
    assert ranges.part(f"bytes=-{count}", size) == ranges.Part(max(0, size - count), size)


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_an_empty_file_has_no_range(header: str) -> None:
    with pytest.raises(ranges.Unsatisfiable):
        ranges.part(header, 0)
