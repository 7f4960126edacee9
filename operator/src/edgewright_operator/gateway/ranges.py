"""The Range header for one file of known size (RFC 9110, section 14): pure."""

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*", re.IGNORECASE)
_HUGE = 10**18


class Unsatisfiable(ValueError):
    """The range lies outside of the file."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes `start` to `end`, the latter not included."""

    start: int
    end: int


def part(header: str, size: int) -> Part | None:
    """The one range that is asked for, or None for the whole file: no header, another unit, several, or nonsense.

    Raises:
        Unsatisfiable: it begins behind the end, or asks for the last zero bytes.
    """
    match = _RANGE.fullmatch(header)
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        length = min(_number(suffix), size)
        if not length:
            raise Unsatisfiable(f"{header[:64]} asks for nothing of {size} bytes")
        return Part(size - length, size)
    start, end = _number(first), _number(last) if last else _HUGE
    if end < start:
        return None
    if start >= size:
        raise Unsatisfiable(f"{header[:64]} begins behind the last of {size} bytes")
    return Part(start, min(end + 1, size))


def _number(digits: str) -> int:
    """Digits of any count: Python refuses to read more than 4,300 of them."""
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= len(str(_HUGE)) - 1 else _HUGE
