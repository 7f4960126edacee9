"""Strict JSON: one reading for every parser, and no bomb reaches the recursive one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_contract import strictjson

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def load(data: bytes) -> object:
    return strictjson.loads(data, limit=1 << 20, what="it")


@given(st.dictionaries(st.text(), VALUES, max_size=5), st.booleans())
def test_an_object_reads_as_it_was_written(value: dict[str, object], ascii_only: bool) -> None:
    assert load(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'{"a":1,"a":2}', "stands twice"),
        (b'{"a":{"b":1,"\\u0062":2}}', "stands twice"),
        (b'{"a":NaN}', "NaN is not JSON"),
        (b'{"a":-Infinity}', "is not JSON"),
        (b"[]", "a JSON object is needed, not list"),
        (b"{}{}", "not JSON"),
        (b"{} x", "not JSON"),
        (b'{"a":"\xff"}', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"", "not JSON"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "nested deeper"),
        (b"[" * 1_000_000, "nested deeper"),
        (b'"' + b"[" * 100, "nested deeper"),
        (b" " * (1 << 20) + b"{}", "at most"),
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(strictjson.StrictJsonError, match=told):
        load(data)


@pytest.mark.parametrize("text", ["[[" * 50, '\\"' + "[" * 50, "\\\\", '\\\\\\"{' * 40, "}]" * 60])
def test_brackets_inside_of_strings_are_not_depth(text: str) -> None:
    assert load(b'{"a":"' + text.encode() + b'"}') == {"a": json.loads(f'"{text}"')}
