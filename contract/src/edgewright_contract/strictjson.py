"""JSON from outside, read strictly: UTF-8, no duplicate keys, no NaN or Infinity, bounded depth, exactly one object."""

import json
import re
from typing import Any, Final

MAX_DEPTH: Final = 32
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKET = re.compile(rb"[][{}]")


class StrictJsonError(ValueError):
    """The bytes are not one JSON object that every parser reads alike."""


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:  # parsers differ on which one wins: an attacker's choice
            raise StrictJsonError(f"key {key[:64]!r} stands twice in one object")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise StrictJsonError(f"{name} is not JSON")


def _depth(data: bytes) -> int:
    """The deepest nesting outside of strings, so that the recursive parser never sees a bomb."""
    deepest = depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", data)):
        if bracket in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def loads(data: bytes, *, limit: int, what: str) -> dict[str, Any]:
    """Parse one object of at most `limit` bytes.

    Raises:
        StrictJsonError: with a sentence that begins with `what`.
    """
    if len(data) > limit:
        raise StrictJsonError(f"{what}: {len(data)} bytes, at most {limit} are read")
    if _depth(data) > MAX_DEPTH:
        raise StrictJsonError(f"{what}: nested deeper than {MAX_DEPTH}")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except StrictJsonError as error:
        raise StrictJsonError(f"{what}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise StrictJsonError(f"{what}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise StrictJsonError(f"{what}: a JSON object is needed, not {type(value).__name__}")
    return value
