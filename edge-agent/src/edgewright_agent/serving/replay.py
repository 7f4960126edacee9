"""Source replay: traces as Tracebase CSV or as .npy of watts at 1 Hz, played from now on at a chosen speed."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from edgewright_agent.serving.live import Live, Reading
from edgewright_agent.serving.window import is_reading

log = logging.getLogger(__name__)


class BadTrace(ValueError):
    """The path holds no trace; the sentence says which path."""


def find(paths: Sequence[Path]) -> list[Path]:
    """The trace files, folders opened, by name.

    Raises:
        BadTrace: a path that is neither .csv, .npy nor a folder with such files.
    """
    found: list[Path] = []
    for path in paths:
        inside = (
            sorted(item for item in path.rglob("*") if item.suffix in (".csv", ".npy")) if path.is_dir() else [path]
        )
        if not inside or not all(item.is_file() and item.suffix in (".csv", ".npy") for item in inside):
            raise BadTrace(f"{path}: give a .csv or .npy file, or a folder that holds some.")
        found += inside
    return found


def readings(path: Path) -> Iterator[Reading]:
    """The trace's readings in its own time (UTC assumed); lines that cannot be read are skipped and counted."""
    if path.suffix == ".npy":
        watts = np.load(path, allow_pickle=False, mmap_mode="r")
        for second, value in enumerate(watts.ravel()):
            if is_reading(second, float(value)):  # what is not becomes a gap, as in a CSV
                yield Reading(second, float(value))
        return
    bad = 0
    with path.open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            reading = _line(line)
            if reading is None:
                bad += 1
            else:
                yield reading
    if bad:
        log.warning("%s: %d lines were skipped; each must read dd/mm/yyyy HH:MM:SS;W;W", path.name, bad)


def _line(line: str) -> Reading | None:
    fields = line.strip().split(";")
    try:
        when = datetime.strptime(fields[0], "%d/%m/%Y %H:%M:%S").replace(tzinfo=UTC).timestamp()
        watts = float(fields[1])
    except (ValueError, IndexError):
        return None
    return Reading(int(when), watts) if is_reading(when, watts) else None


async def play(live: Live, paths: Sequence[Path], start: int, speed: float) -> None:
    """Play the files one after the other, the first reading at Unix second `start`; speed 0 means without pauses."""
    try:
        await _play(live, paths, start, speed)
    except (OSError, ValueError) as error:  # the node goes on serving without its replay
        log.error("The replay ended early: %s", error)


async def _play(live: Live, paths: Sequence[Path], start: int, speed: float) -> None:
    loop = asyncio.get_running_loop()
    began, base, batch = loop.time(), start, list[Reading]()
    for path in paths:
        first: int | None = None
        shifted = base
        for reading in readings(path):
            first = reading.t if first is None else first
            shifted = base + reading.t - first
            batch.append(Reading(shifted, reading.watts))
            early = (shifted - start) / speed - (loop.time() - began) if speed else 0.0
            if early > 0 or len(batch) >= 256:
                await live.take(batch)
                batch = []
                await asyncio.sleep(max(early, 0))
        base = shifted + 1
    await live.take(batch)
    if paths:
        log.info("The replay of %d files has ended.", len(paths))
