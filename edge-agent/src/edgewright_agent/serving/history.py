"""This node's own readings of the last 48 hours on disk: evidence for the next model. It never leaves the node.

One file an hour, appended to once a minute and flushed, so a power loss costs a minute; a torn end is cut off.
"""

import contextlib
import itertools
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from edgewright_agent import disk
from edgewright_agent.serving.engine import Watts
from edgewright_agent.serving.window import HOLD_SECONDS

log = logging.getLogger(__name__)
HOURS: Final = 48
FLUSH_SECONDS: Final = 60
RECORD: Final = np.dtype([("second", "<u4"), ("watts", "<f4")])
"""One reading: seconds since the hour began, and watts."""
_NAME: Final = re.compile(r"\d{1,9}\.readings")
_MAX_FILE_BYTES: Final = 4 * 3600 * RECORD.itemsize
_SET_SINCE: Final = 1_735_689_600
"""2025, before this program was: a clock that stands earlier was never set, and tells nothing."""


class History:
    """Append-only by hour; what is older than 48 hours before the newest reading is removed.

    `clock`: the node's, Unix seconds. Readings are not believed about what time it is: one of them, of a clock that was
    not set yet or of a pusher who errs, would else cost all others.
    """

    def __init__(self, folder: Path, ops: disk.FileOps | None = None, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = folder, clock
        self._ops = ops or disk.FileOps()
        self._pending: list[tuple[int, float]] = []
        self._turn = threading.Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def add(self, second: int, watts: float) -> bool:
        """Keep the reading of this Unix second; whether it is time to flush."""
        self._pending.append((second, watts))
        full = len(self._pending) >= 8 * FLUSH_SECONDS
        return full or not 0 <= second - self._pending[0][0] < FLUSH_SECONDS

    def flush(self) -> None:
        """Write what is pending. A disk that refuses costs readings of evidence, never the service."""
        with self._turn:
            self._flush()

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        try:
            for hour, readings in itertools.groupby(pending, key=lambda reading: reading[0] // 3600):
                self._append(hour, [(second % 3600, watts) for second, watts in readings])
            if pending:
                self._forget()
        except OSError as error:
            log.warning("Readings of %d s are not kept as evidence: %s", len(pending), error)

    def _append(self, hour: int, readings: list[tuple[int, float]]) -> None:
        path = self._path(hour)
        new = not path.exists()
        descriptor = disk.open_plain(self._ops, path, disk.APPEND)
        try:
            size = os.fstat(descriptor).st_size
            if size >= _MAX_FILE_BYTES:
                return  # somebody sends the same hour again and again
            if size % RECORD.itemsize:
                self._ops.truncate(descriptor, size - size % RECORD.itemsize)
            disk.write_all(self._ops, descriptor, np.array(readings, RECORD).tobytes())
            self._ops.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            disk.sync_folder(self._ops, self._folder)

    def _forget(self) -> None:
        """What is too old beside the newest, and what lies in the future of a clock that is set."""
        now, files = self._clock(), {path: _hour(path) for path in self._files()}
        latest = int(now) // 3600 + 1 if now >= _SET_SINCE else max(files.values(), default=0)
        newest = max((hour for hour in files.values() if hour <= latest), default=latest)
        for path, hour in files.items():
            if not newest - HOURS < hour <= latest:
                self._ops.unlink(path)

    def dense(self) -> Watts:
        """Watts of each second from the oldest to the newest reading, [seconds]; NaN where nothing is known.

        A gap of at most a minute holds the last value, as the live window does.
        """
        self.flush()
        parts = [part for path in self._files() if len(part := self._read(path))]
        if not parts:
            return np.zeros(0, np.float32)
        seconds = np.concatenate([part["second"] for part in parts])
        start = int(seconds.min())
        filled = np.full(min(int(seconds.max()) - start + 1, HOURS * 3600), np.nan, np.float32)
        start = int(seconds.max()) - len(filled) + 1
        recent = seconds >= start
        filled[seconds[recent] - start] = np.concatenate([part["watts"] for part in parts])[recent]
        return _held(filled)

    def _read(self, path: Path) -> "npt.NDArray[np.void]":
        data = b""
        with contextlib.suppress(OSError):
            descriptor = disk.open_plain(self._ops, path, disk.READ)
            try:
                data = disk.read_all(descriptor, _MAX_FILE_BYTES)
            finally:
                os.close(descriptor)
        found = np.frombuffer(data[: len(data) - len(data) % RECORD.itemsize], RECORD)
        good = (found["second"] < 3600) & np.isfinite(found["watts"]) & (np.abs(found["watts"]) < 1e6)
        widened = np.dtype([("second", "<i8"), ("watts", "<f4")])
        result = np.zeros(int(good.sum()), widened)
        result["second"] = found["second"][good].astype(np.int64) + _hour(path) * 3600
        result["watts"] = found["watts"][good]
        return result

    def _files(self) -> list[Path]:
        return sorted((path for path in self._folder.iterdir() if _NAME.fullmatch(path.name)), key=_hour)

    def _path(self, hour: int) -> Path:
        return self._folder / f"{hour}.readings"


def _hour(path: Path) -> int:
    return int(path.name.partition(".")[0])


def _held(watts: Watts) -> Watts:
    known = np.isfinite(watts)
    places = np.arange(len(watts))
    last = np.maximum.accumulate(np.where(known, places, 0))
    held = places - last <= HOLD_SECONDS
    return np.where(held, watts[last], np.float32(np.nan))
