"""Files and state on disk: blobs by digest and state.json. Each write is tmp, fsync, rename, fsync of the folder.

A crash at any point leaves the old or the new, never a half. Bytes are hashed again whenever they are read.
"""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from edgewright_agent import disk
from edgewright_agent.disk import FileOps
from edgewright_agent.saved import Saved, StateError
from edgewright_agent.state import AgentState, Floors
from edgewright_contract.digests import digest_of, is_digest

STATE_FILE = "state.json"
FLOORS_FILE = "floors.json"


class BlobError(Exception):
    """A blob is absent, too long, not a plain file, or its bytes do not fit its digest."""


class Store:
    """The agent's folder. One process owns it."""

    def __init__(self, folder: Path, ops: FileOps | None = None) -> None:
        self.folder = folder
        self.ops = ops or FileOps()
        self._blobs = folder / "blobs"
        self._blobs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._state_file = Saved(folder / STATE_FILE, AgentState, self.ops)
        self._floors_file = Saved(folder / FLOORS_FILE, Floors, self.ops)
        self._floors: Floors | None = None
        self.damage = ""
        """What `load` found damaged."""

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

    def open_part(self, digest: str) -> int:
        """A descriptor to append to the unfinished download; what is no plain file is put out of the way first.

        Raises:
            OSError: the disk refuses.
        """
        part = self.part(digest)
        try:
            return disk.open_plain(self.ops, part, disk.APPEND)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.EISDIR):
                raise
            disk.remove(self.ops, part)
            return disk.open_plain(self.ops, part, disk.APPEND)

    def adopt_part(self, digest: str, limit: int) -> None:
        """Make a finished download a blob.

        Raises:
            BlobError: its bytes do not fit; the part is removed, so that the next attempt begins anew.
            OSError: the disk refuses.
        """
        part = self.part(digest)
        try:
            data = self._read_plain(part, limit)
            if digest_of(data) != digest:
                raise BlobError(f"the bytes fetched for {digest} have another digest")
        except BlobError:
            disk.remove(self.ops, part)
            raise
        descriptor = disk.open_plain(self.ops, part, disk.APPEND)
        try:
            self.ops.fsync(descriptor)
        finally:
            os.close(descriptor)
        disk.move(self.ops, part, self.path(digest))

    def load(self) -> AgentState:
        """The state; a new one on a new node. What was seen highest stands in a second file, so it is never forgotten.

        Raises:
            StateError: a file cannot be read, or all versions of both are damaged, so that no floor is known.
        """
        floors, state = self._floors_file.load(), self._state_file.load()
        damages = [file.damage for file in (self._state_file, self._floors_file) if file.damage]
        self.damage = "; ".join(damages)
        if floors is None and state is None and len(damages) > 1:
            raise StateError(f"{self.folder}: {self.damage}; nothing tells which releases this node may not go back to")
        self._floors = floors
        state = state or AgentState()
        return state.model_copy(update={"floors": state.floors.raised(floors or Floors())})

    def save(self, state: AgentState) -> None:
        """Replace state.json; a raised floor is written first.

        Raises:
            OSError: the disk refuses; what was saved before still stands.
        """
        if state.floors != (self._floors or Floors()):
            self._floors_file.save(state.floors)
            self._floors = state.floors
        self._state_file.save(state)

    def collect(self, keep: Iterable[str]) -> list[str]:
        """Remove blobs, parts and leftovers that nobody needs; the names removed.

        Raises:
            OSError: the disk refuses.
        """
        kept = {digest.removeprefix("sha256:") for digest in keep}
        removed = []
        for path in sorted(self._blobs.iterdir()):
            if path.name.partition(".")[0] not in kept:
                disk.remove(self.ops, path)
                removed.append(path.name)
        return removed

    def free_bytes(self) -> int:
        """Bytes that this process may still write; 0 where no further file can be made."""
        figures = os.statvfs(self.folder)
        if figures.f_files and not figures.f_favail:
            return 0
        return figures.f_bavail * figures.f_frsize

    def _read_plain(self, path: Path, limit: int) -> bytes:
        try:
            data = disk.read_plain(self.ops, path, limit + 1)
        except OSError as error:
            raise BlobError(f"{path.name}: {error.strerror}") from None
        if len(data) > limit:
            raise BlobError(f"{path.name}: longer than {limit} bytes")
        return data
