"""Verified files by digest on disk: a cache that may be lost. Blocking calls: the gateway makes them in threads."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_Stamp = tuple[int, int, int]
Write = Callable[[bytes], None]


class DigestMismatch(ValueError):
    """The bytes are not those of the digest; nothing was kept."""


@dataclass(slots=True)
class Blobs:
    """A folder of files named by their SHA-256. A file is hashed when it comes in, and once more after a restart."""

    directory: Path
    _checked: dict[str, _Stamp] = field(default_factory=dict)

    @contextmanager
    def receive(self, digest: str) -> Iterator[Write]:
        """What is written becomes the blob, visible only when whole.

        Raises:
            DigestMismatch: on leaving, other bytes were written.
            OSError: the disk is full or gone.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(".part", ".", self.directory)
        part, hashed = Path(name), hashlib.sha256()
        try:
            with os.fdopen(descriptor, "wb") as stream:

                def write(data: bytes) -> None:
                    hashed.update(data)
                    stream.write(data)

                yield write
            if f"sha256:{hashed.hexdigest()}" != digest:
                raise DigestMismatch(digest)
            target = self._file(digest)
            part.replace(target)
            self._checked[digest] = _stamp(target)
        finally:
            part.unlink(missing_ok=True)

    def put(self, digest: str, data: bytes) -> None:
        """Keep bytes that are at hand.

        Raises:
            DigestMismatch, OSError
        """
        with self.receive(digest) as write:
            write(data)

    def find(self, digest: str) -> Path | None:
        """The file, or None where it is not held; one that is no longer what its name says is removed."""
        file = self._file(digest)
        try:
            stamp = _stamp(file)
            if self._checked.get(digest) != stamp:
                if _digest(file) != digest:
                    self.forget(digest)
                    return None
                self._checked[digest] = stamp
        except FileNotFoundError:
            return None
        return file

    def read(self, digest: str) -> bytes | None:
        """The bytes of a small file, or None where they are not held."""
        file = self.find(digest)
        return file.read_bytes() if file else None

    def forget(self, digest: str) -> None:
        """Remove a file; one that is being sent is sent to its end."""
        self._checked.pop(digest, None)
        self._file(digest).unlink(missing_ok=True)

    def sizes(self) -> dict[str, int]:
        """Bytes of every file by digest."""
        found: dict[str, int] = {}
        for file in self.directory.glob("*"):
            if file.suffix != ".part" and file.is_file():
                found[f"sha256:{file.name}"] = file.stat().st_size
        return found

    def clean(self) -> None:
        """Remove what a killed process left half-written."""
        for file in self.directory.glob(".*.part"):
            file.unlink(missing_ok=True)

    def _file(self, digest: str) -> Path:
        return self.directory / digest.removeprefix("sha256:")


def _stamp(file: Path) -> _Stamp:
    found = file.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
