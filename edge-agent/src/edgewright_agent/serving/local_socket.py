"""Unix sockets that are born with their mode, so that nobody can connect before it is narrowed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def place_for(path: Path, mode: int) -> Iterator[None]:
    """Within it a socket that is bound to `path` gets exactly `mode`; one left by an earlier process is removed."""
    path.unlink(missing_ok=True)
    before = os.umask(0o777 & ~mode)
    try:
        yield
    finally:
        os.umask(before)
