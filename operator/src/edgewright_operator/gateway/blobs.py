"""Verified files by digest on disk: a cache that may be lost. The only file of the gateway that writes."""

import os
from dataclasses import dataclass
from pathlib import Path

from edgewright_contract.digests import digest_of


@dataclass(frozen=True, slots=True)
class Blobs:
    """A folder of files named by their SHA-256."""

    directory: Path

    def put(self, digest: str, data: bytes) -> None:
        """Keep bytes whose digest the caller checked; visible only when whole and on disk."""
        self.directory.mkdir(parents=True, exist_ok=True)
        target = self._file(digest)
        part = target.with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(target)

    def get(self, digest: str) -> bytes | None:
        """The bytes, or None where they are not held or no longer what their name says."""
        try:
            data = self._file(digest).read_bytes()
        except FileNotFoundError:
            return None
        return data if digest_of(data) == digest else None

    def _file(self, digest: str) -> Path:
        return self.directory / digest.removeprefix("sha256:")
