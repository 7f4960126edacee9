"""Which releases the cache holds: one file for each manifest, listing the digests that belong to it.

Nothing here is believed: it says where to look after a restart, and what may go when the volume is full.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgewright_operator.gateway import whole_file
from edgewright_operator.gateway.blobs import Blobs


@dataclass(frozen=True, slots=True)
class Index:
    """A folder beside the blobs."""

    directory: Path

    def remember(self, manifest: str, digests: Iterable[str]) -> None:
        """The release is held, all of it."""
        whole_file.write(self._file(manifest), "\n".join(sorted({manifest, *digests})).encode())

    def holds(self, manifest: str) -> bool:
        """Whether the release came in and was not forgotten."""
        return self._file(manifest).exists()

    def sweep(self, blobs: Blobs) -> None:
        """Remove what no release needs: half-written parts, files of a fetch that broke off. Only before serving."""
        blobs.clean()
        needed = set().union(*self._held().values())
        for digest in blobs.sizes().keys() - needed:
            blobs.forget(digest)

    def evict(self, blobs: Blobs, limit: int, newest: str) -> list[str]:
        """Forget the releases that came in first until all files fit into `limit` bytes; gives their manifests."""
        sizes, held, gone = blobs.sizes(), self._held(), []
        while sum(sizes.values()) > limit and (oldest := next((name for name in held if name != newest), None)):
            for digest in (held.pop(oldest) - set().union(*held.values())) & sizes.keys():
                blobs.forget(digest)
                del sizes[digest]
            self._file(oldest).unlink(missing_ok=True)
            gone.append(oldest)
        return gone

    def _held(self) -> dict[str, set[str]]:
        """Digests by manifest, the one that came in first first."""
        if not self.directory.is_dir():
            return {}
        whole = [file for file in self.directory.iterdir() if not file.name.startswith(".")]
        files = sorted(whole, key=lambda file: file.stat().st_mtime_ns)
        # what a damaged file lists beside digests belongs to no blob
        return {f"sha256:{file.name}": set(file.read_text(errors="replace").split()) for file in files}

    def _file(self, manifest: str) -> Path:
        return self.directory / manifest.removeprefix("sha256:")
