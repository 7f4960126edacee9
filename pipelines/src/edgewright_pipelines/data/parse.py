"""Inside traces.read: the bytes of one file become one value a second for one day, mended and counted; pure."""

import re
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice

import numpy as np
import numpy.typing as npt
import polars as pl
from backports import zstd

DAY_SECONDS = 86_400
HOLD_SECONDS = 60
MAX_WATTS = 65_535
MAX_BYTES = 64 << 20  # a day of one reading a second is 3 MB; more is no day trace, and could be a zip bomb

_TIME = "%d/%m/%Y %H:%M:%S"
_EPOCH = date(1970, 1, 1)
_ROW = re.compile(rb'^"?\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d{2}:\d{2}"?[;,] *\d{1,9}[;,] *\d{1,9} *\r?$')


class FileProblem(ValueError):
    """A file that is not a day trace; the text is the second half of a sentence that starts with the file's name."""


@dataclass(frozen=True, slots=True, eq=False)
class Day:
    """One parsed file. watts: uint16 [86400]; counts are rows or, where named so, seconds of the day.

    gap_seconds: set to 0 because nothing was known; held_seconds: the last value, held for at most 60 s;
    foreign_rows: rows of another date than most, left out.
    """

    date: str
    watts: npt.NDArray[np.uint16]
    rows: int
    gap_seconds: int
    held_seconds: int
    unsorted_rows: int
    repeated_rows: int
    foreign_rows: int


def decompress(data: bytes) -> bytes:
    """Undo zstd, however many frames. Raises FileProblem for empty, truncated, broken or oversized data."""
    if not data:
        raise FileProblem("is empty; fetch it again")
    parts: list[bytes] = []
    room = MAX_BYTES
    try:
        while data:
            frame = zstd.ZstdDecompressor()
            parts.append(frame.decompress(data, max_length=room + 1))
            room -= len(parts[-1])
            if room < 0:
                raise FileProblem(f"unpacks to more than {MAX_BYTES >> 20} MB, which no day trace does")
            if not frame.eof:
                raise FileProblem("ends in the middle of its zstd data; fetch it again")
            data = frame.unused_data
    except zstd.ZstdError:
        raise FileProblem("is not zstd data although its name ends in .zst; fetch it again") from None
    return b"".join(parts)


def parse(text: bytes) -> Day:
    """Read `dd/mm/yyyy HH:MM:SS;<W, 1 s mean>;<W, 8 s mean>` rows (or with commas). Raises FileProblem."""
    if not text.strip():
        raise FileProblem("is empty; fetch it again")
    seconds, watts = _columns(text)
    days = seconds // DAY_SECONDS
    found, counts = np.unique(days, return_counts=True)
    day = int(found[counts.argmax()])
    own = days == day
    return _day(day, (seconds[own] - day * DAY_SECONDS).astype(np.int64), watts[own], foreign=int((~own).sum()))


def _columns(text: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Seconds since 1970 (local time of the plug) and watts of each row."""
    separator = ";" if b";" in text.split(b"\n", 1)[0] else ","
    try:
        table = pl.read_csv(
            text,
            separator=separator,
            has_header=False,
            schema={"time": pl.String, "watts": pl.Int64, "mean8": pl.Int64},
            raise_if_empty=True,
        ).with_columns(pl.col("time").str.strptime(pl.Datetime("us"), _TIME, strict=False))
    except (pl.exceptions.PolarsError, UnicodeDecodeError):
        raise FileProblem(_first_bad_row(text)) from None
    if any(table.null_count().row(0)):
        raise FileProblem(_first_bad_row(text))
    watts = table["watts"].to_numpy()
    if (watts < 0).any() or (watts > MAX_WATTS).any():
        row = int(((watts < 0) | (watts > MAX_WATTS)).argmax())
        raise FileProblem(
            f"has {watts[row]} W in row {row + 1}; a plug reads 0 to {MAX_WATTS} W, so the file is not trusted"
        )
    return table["time"].dt.epoch("s").to_numpy(), watts


def _first_bad_row(text: bytes) -> str:
    """Say which row is wrong; the slow way, for files that are refused anyway."""
    if b"\0" in text[:4096]:
        return "is binary, not text"
    for number, row in enumerate(islice(text.split(b"\n"), 1_000_000), start=1):
        if row.strip() and not _ROW.match(row):
            return f"has {_shown(row)} in row {number}, where 'dd/mm/yyyy HH:MM:SS;watts;watts' should stand"
    return "has a date or time that does not exist, or fields that do not fit 'dd/mm/yyyy HH:MM:SS;watts;watts'"


def _shown(row: bytes) -> str:
    text = row.strip().decode("utf-8", errors="replace")
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _day(day: int, second: npt.NDArray[np.int64], watts: npt.NDArray[np.int64], foreign: int) -> Day:
    backwards = int((np.diff(second) < 0).sum())
    order = np.argsort(second, kind="stable") if backwards else np.arange(len(second))
    second, watts = second[order], watts[order]
    last = np.append(second[1:] != second[:-1], True)  # of a repeated second the last row counts
    known, values = second[last], watts[last].astype(np.uint16)
    filled, held, gap = hold(known, values)
    return Day(
        date=(_EPOCH + timedelta(days=day)).isoformat(),
        watts=filled,
        rows=len(second),
        gap_seconds=gap,
        held_seconds=held,
        unsorted_rows=backwards,
        repeated_rows=len(second) - len(known),
        foreign_rows=foreign,
    )


def hold(known: npt.NDArray[np.int64], values: npt.NDArray[np.uint16]) -> tuple[npt.NDArray[np.uint16], int, int]:
    """Fill a day from readings at `known` seconds (ascending, unique): (watts [86400], held seconds, gap seconds)."""
    latest = np.full(DAY_SECONDS, -1, dtype=np.int64)
    latest[known] = np.arange(len(known))
    latest = np.maximum.accumulate(latest)
    age = np.arange(DAY_SECONDS) - np.where(latest >= 0, known[latest], -DAY_SECONDS)
    covered = age <= HOLD_SECONDS
    watts = np.where(covered, values[latest], 0).astype(np.uint16)
    gap = int((~covered).sum())
    return watts, DAY_SECONDS - len(known) - gap, gap
