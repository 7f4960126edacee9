"""The three spellings of numbers in a spec: durations (`10m`), sizes (`512Ki`), percentages (`10%`)."""

import math
import re
from typing import Annotated, Final

from pydantic import Field

DURATION_PATTERN: Final = r"^([0-9]{1,6})(ms|s|m|h)$"
SIZE_PATTERN: Final = r"^[0-9]{1,9}(Ki|Mi|Gi)?$"
PERCENT_PATTERN: Final = r"^(100|[1-9]?[0-9])%$"

Duration = Annotated[str, Field(pattern=DURATION_PATTERN, max_length=9)]
Size = Annotated[str, Field(pattern=SIZE_PATTERN, max_length=11)]
NodesOrPercent = Annotated[
    int | str,
    # Of an int-or-string the server tests the pattern on strings and the minimum on integers.
    Field(json_schema_extra={"x-kubernetes-int-or-string": True, "pattern": PERCENT_PATTERN, "minimum": 0}),
]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZES = {"": 1, "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3}


def seconds(duration: str) -> float:
    """Seconds of a duration.

    Raises:
        ValueError: not a number followed by ms, s, m or h.
    """
    match = re.fullmatch(DURATION_PATTERN, duration)
    if match is None:
        raise ValueError(f"{duration!r} is not a duration: write a whole number and ms, s, m or h, for example 10m")
    return int(match[1]) * _UNITS[match[2]]


def size_bytes(size: str) -> int:
    """Bytes of a size.

    Raises:
        ValueError: not a number with Ki, Mi, Gi or nothing.
    """
    match = re.fullmatch(r"([0-9]{1,9})(Ki|Mi|Gi)?", size)
    if match is None:
        raise ValueError(f"{size!r} is not a size: write a whole number and Ki, Mi, Gi or nothing, for example 512Ki")
    return int(match[1]) * _SIZES[match[2] or ""]


def share_of(value: int | str, total: int, *, at_least: int) -> int:
    """A count, or a percentage of `total` rounded up; never less than `at_least`, never more than `total`.

    Raises:
        ValueError: neither a count nor a percentage.
    """
    if isinstance(value, int):
        count = value
    elif re.fullmatch(PERCENT_PATTERN, value):
        count = math.ceil(total * int(value[:-1]) / 100)
    else:
        raise ValueError(f"{value!r}: write a number of nodes or a percentage such as 10%")
    return min(max(count, at_least), total)
