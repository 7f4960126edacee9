"""One demo at a time in a folder: a lock which the kernel takes back when its holder ends, however that comes."""

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from edgewright_local.errors import LocalPlatformError

END_SECONDS = 60.0
"""How long a demo that was told to end may take."""


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold the lock of a demo's folder.

    Raises:
        LocalPlatformError: another demo holds it.
    """
    with _lock_file(directory) as file:
        if not _taken(file):
            raise LocalPlatformError(
                f"a demo runs in this folder already (process {_holder(file)}): end it with Ctrl-C there or with "
                "`make demo-stop`, or run this one in another clone"
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def end(directory: Path) -> int | None:
    """Tell the demo that holds the lock to end, and wait until it has; its pid, or None where there is none.

    Raises:
        LocalPlatformError: it has not ended within END_SECONDS.
    """
    with _lock_file(directory) as file:
        if _taken(file):
            return None
        os.kill(pid := _holder(file), signal.SIGTERM)
        deadline = time.monotonic() + END_SECONDS
        while not _taken(file):
            if time.monotonic() > deadline:
                raise LocalPlatformError(f"process {pid} was told to end the demo and has not within {END_SECONDS} s")
            time.sleep(0.1)
        return pid


def _lock_file(directory: Path) -> IO[str]:
    """Beside the folder, which each demo makes anew."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    return directory.with_name("demo.lock").open("a+")


def _taken(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: IO[str]) -> int:
    file.seek(0)
    return int(file.read())
