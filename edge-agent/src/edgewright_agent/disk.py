"""The calls that touch the disk, as one value: what a test replaces to put a fault into each. Decides nothing."""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
APPEND: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def _open(path: Path, flags: int) -> int:
    return os.open(path, flags, 0o600)


@dataclass(frozen=True)
class FileOps:
    """Every call of the agent that reads, changes or flushes its folder."""

    open: Callable[[Path, int], int] = _open
    write: Callable[[int, bytes], int] = os.write
    truncate: Callable[[int, int], None] = os.ftruncate
    fsync: Callable[[int], None] = os.fsync
    replace: Callable[[Path, Path], None] = os.replace
    unlink: Callable[[Path], None] = os.unlink


def open_plain(ops: FileOps, path: Path, flags: int) -> int:
    """A descriptor of a plain file with one name. A link, a pipe or a device is neither followed nor waited for.

    Raises:
        OSError: it cannot be opened, or is something else (EINVAL).
    """
    descriptor = ops.open(path, flags)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a plain file with one name", str(path))


def write_all(ops: FileOps, descriptor: int, data: bytes) -> None:
    """Write everything, however little one call takes.

    Raises:
        OSError: the disk refuses.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[ops.write(descriptor, bytes(rest)) :]


def read_all(descriptor: int, limit: int) -> bytes:
    """At most `limit` bytes from the start of the file."""
    parts, size = [], 0
    while size < limit and (part := os.pread(descriptor, min(1 << 20, limit - size), size)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def read_plain(ops: FileOps, path: Path, limit: int) -> bytes:
    """At most `limit` bytes of a plain file.

    Raises:
        OSError: it cannot be read, or is something else (EINVAL).
    """
    descriptor = open_plain(ops, path, READ)
    try:
        return read_all(descriptor, limit)
    finally:
        os.close(descriptor)


def replace_file(ops: FileOps, path: Path, data: bytes, before: Path | None = None) -> None:
    """Write the file anew, for nobody else to read: a power loss leaves the old or the new, never a half.

    With `before` the old file gets that name first, so that between the two renames only it stands.

    Raises:
        OSError: the disk refuses; the old file still stands.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        descriptor = ops.open(temporary, CREATE)
    except FileExistsError:  # left by a crash, or planted
        remove(ops, temporary)
        descriptor = ops.open(temporary, CREATE)
    try:
        write_all(ops, descriptor, data)
        ops.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):  # what fsync refused is never written to again
            ops.unlink(temporary)
        raise
    finally:
        os.close(descriptor)
    if before is not None:
        _rename(ops, path, before)
    move(ops, temporary, path)


def move(ops: FileOps, source: Path, target: Path) -> None:
    """Give a flushed file its name, for good.

    Raises:
        OSError: the disk refuses.
    """
    _rename(ops, source, target)
    sync_folder(ops, target.parent)


def _rename(ops: FileOps, source: Path, target: Path) -> None:
    if target.is_dir() and not target.is_symlink():  # nothing of ours; it would stop the rename
        remove(ops, target)
    ops.replace(source, target)


def remove(ops: FileOps, path: Path) -> None:
    """Have nothing of this name, whatever it is.

    Raises:
        OSError: the disk refuses.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        return
    with contextlib.suppress(FileNotFoundError):
        ops.unlink(path)


def sync_folder(ops: FileOps, folder: Path) -> None:
    """Make names in the folder survive a power loss."""
    descriptor = ops.open(folder, FOLDER)
    try:
        ops.fsync(descriptor)
    finally:
        os.close(descriptor)
