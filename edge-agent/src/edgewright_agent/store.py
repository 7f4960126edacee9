"""Files and state on disk: blobs by digest and state.json. Each write is tmp, fsync, rename, fsync of the folder.

A crash at any point leaves the old or the new, never a half. Bytes are hashed again whenever they are read.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from edgewright_agent.state import AgentState
from edgewright_contract.digests import digest_of, is_digest

STATE_FILE = "state.json"


class BlobError(Exception):
    """A blob is absent, too long, not a plain file, or its bytes do not fit its digest."""


class StateError(Exception):
    """state.json cannot be read."""


@dataclass(frozen=True)
class FileOps:
    """The calls that change the disk; a test puts a fault into each."""

    write: Callable[[int, bytes], int] = os.write
    fsync: Callable[[int], None] = os.fsync
    replace: Callable[[Path, Path], None] = os.replace
    unlink: Callable[[Path], None] = os.unlink


class Store:
    """The agent's folder. One process owns it."""

    def __init__(self, folder: Path, ops: FileOps | None = None) -> None:
        self.folder = folder
        self._ops = ops or FileOps()
        self._blobs = folder / "blobs"
        self._blobs.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the blob of this digest lies, or would lie."""
        if not is_digest(digest):
            raise BlobError(f"{digest!r} is not a digest")
        return self._blobs / digest.removeprefix("sha256:")

    def part(self, digest: str) -> Path:
        """Where the bytes of an unfinished download lie."""
        return self.path(digest).with_suffix(".part")

    def read(self, digest: str, limit: int) -> bytes:
        """The bytes of a blob, hashed now.

        Raises:
            BlobError: absent, a link, longer than `limit`, or changed on disk.
        """
        data = self._read_plain(self.path(digest), limit)
        if digest_of(data) != digest:
            raise BlobError(f"blob {digest} changed on disk")
        return data

    def has(self, digest: str, limit: int) -> bool:
        """Whether the blob is there and whole."""
        try:
            self.read(digest, limit)
        except BlobError:
            return False
        return True

    def put(self, data: bytes) -> str:
        """Write a blob; its digest."""
        digest = digest_of(data)
        self._write(self.path(digest), data)
        return digest

    def adopt_part(self, digest: str, limit: int) -> None:
        """Make a finished download a blob.

        Raises:
            BlobError: its bytes do not fit; the part is removed, so that the next attempt begins anew.
        """
        part = self.part(digest)
        try:
            data = self._read_plain(part, limit)
            if digest_of(data) != digest:
                raise BlobError(f"the bytes fetched for {digest} have another digest")
        except BlobError:
            with contextlib.suppress(FileNotFoundError):
                self._ops.unlink(part)
            raise
        with part.open("rb") as file:
            self._ops.fsync(file.fileno())
        self._ops.replace(part, self.path(digest))
        self._sync_folder(self._blobs)

    def load(self) -> AgentState:
        """The state; a new one on a new node.

        Raises:
            StateError: the file is there and unreadable. It is left as it is.
        """
        path = self.folder / STATE_FILE
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return AgentState()
        except OSError as error:
            raise StateError(f"{path}: {error.strerror}") from None
        try:
            return AgentState.model_validate_json(data)
        except ValidationError as error:
            raise StateError(f"{path}: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}; move it away") from None

    def save(self, state: AgentState) -> None:
        """Replace state.json."""
        self._write(self.folder / STATE_FILE, state.model_dump_json(by_alias=True).encode())

    def collect(self, keep: Iterable[str]) -> list[str]:
        """Remove blobs and parts that nobody needs; the names removed."""
        kept = {digest.removeprefix("sha256:") for digest in keep}
        removed = []
        for path in sorted(self._blobs.iterdir()):
            if path.name.partition(".")[0] not in kept:
                self._ops.unlink(path)
                removed.append(path.name)
        return removed

    def digests(self) -> set[str]:
        """Digests of all blobs and unfinished downloads."""
        return {"sha256:" + path.name.partition(".")[0] for path in self._blobs.iterdir()}

    def free_bytes(self) -> int:
        """Bytes that this process may still write."""
        figures = os.statvfs(self.folder)
        return figures.f_bavail * figures.f_frsize

    def _write(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(path.name + ".tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._ops.write(descriptor, bytes(rest)) :]
            self._ops.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._ops.replace(temporary, path)
        self._sync_folder(path.parent)

    def _sync_folder(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._ops.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _read_plain(self, path: Path, limit: int) -> bytes:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise BlobError(f"{path.name}: {error.strerror}") from None
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BlobError(f"{path.name}: not a plain file")
            data = file.read(limit + 1)
        if len(data) > limit:
            raise BlobError(f"{path.name}: longer than {limit} bytes")
        return data
