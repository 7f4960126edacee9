"""Writes a file as a whole or not at all, so that a cut or a full disk leaves the former one and no rest."""

import os
import tempfile
from pathlib import Path


def write(target: Path, data: bytes) -> None:
    """Replace `target`; what was half written is removed.

    Raises:
        OSError: the disk refused; `target` is as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(".part", ".", target.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
