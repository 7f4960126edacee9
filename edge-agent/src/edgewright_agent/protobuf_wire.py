"""Reads protobuf's wire format, field by field, without a schema: all that onnx_guard.py needs, and no engine."""

from collections.abc import Iterator
from typing import Final

VARINT, I64, BYTES, I32 = 0, 1, 2, 5
_SIZES: Final = {I64: 8, I32: 4}
LONGEST_VARINT: Final = 10
"""Bytes of a number at most."""

Value = int | memoryview


class WireError(ValueError):
    """The bytes are no protobuf message; the sentence says where they end to be one."""


def fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    """Field number and value of each field of one message.

    Raises:
        WireError: malformed.
    """
    at, end = 0, len(data)
    while at < end:
        key, at = varint(data, at)
        field, kind = key >> 3, key & 7
        if kind == VARINT:
            number, at = varint(data, at)
            yield field, number
        elif kind in (BYTES, I64, I32):
            size = _SIZES.get(kind)
            if size is None:
                size, at = varint(data, at)
            if at + size > end:
                raise WireError("a field is longer than its message")
            yield field, data[at : at + size]
            at += size
        else:
            raise WireError(f"wire type {kind}")


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number, and where the next byte stands.

    Raises:
        WireError: it does not end.
    """
    result = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
    raise WireError("a number does not end")


def numbers(value: Value) -> list[int]:
    """The elements of a repeated number, packed or not.

    Raises:
        WireError: malformed.
    """
    if isinstance(value, int):
        return [value]
    found, at = [], 0
    while at < len(value):
        number, at = varint(value, at)
        found.append(number)
    return found


def message(value: Value) -> memoryview:
    """A field that must be a message or bytes.

    Raises:
        WireError: it is a number.
    """
    if isinstance(value, int):
        raise WireError("a number where a message belongs")
    return value


def text(value: Value | bytes) -> str:
    """A field that must be a string.

    Raises:
        WireError: it is something else.
    """
    if isinstance(value, int):
        raise WireError("a number where a name belongs")
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        raise WireError("a name is not UTF-8") from None
