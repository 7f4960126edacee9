"""How a release comes in: downloaded from MLflow, signature and every digest checked, then kept by digest.

What was taken is remembered on the cache's volume; what is lost there is fetched anew when somebody asks for it.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from edgewright_contract import names, release, trust
from edgewright_contract.bundle import Manifest
from edgewright_contract.digests import digest_of
from edgewright_contract.dsse import SignatureError
from edgewright_operator import mlflow
from edgewright_operator.gateway.blobs import Blobs, DigestMismatch
from edgewright_operator.gateway.index import Index
from edgewright_operator.gateway.trusted import TrustKeeper

FUTURE_SECONDS: Final = 86_400
"""A sequence is UTC seconds; one farther ahead would bar every later release from the nodes (fast-forward)."""
RETRY_SECONDS: Final = 5.0
"""So long a failed fetch for a node is told again instead of asking MLflow again."""


class ReleaseChanged(Exception):
    """The version's manifest is not the one that was asked for."""


class ReleaseRefused(Exception):
    """Not signed by whom we trust, altered, or no release; the text says which."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A verified release and which digests belong to it; `judged_by` is the digest of the trust document."""

    manifest: Manifest
    release: release.Release
    judged_by: str


@dataclass(slots=True)
class Intake:
    """Takes releases in, in order, one at a time for each manifest."""

    registry: mlflow.MlflowRegistry
    blobs: Blobs
    index: Index
    keeper: TrustKeeper
    cache_bytes: int = 4 * 1024**3
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    taken: dict[str, Taken] = field(default_factory=dict)
    _locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    _failed: dict[str, tuple[float, Exception]] = field(default_factory=dict)

    async def trusted(self, *, strict: bool) -> trust.OpenedTrust:
        """The trust document, its bytes kept by digest. strict: only what the administrator gives now.

        Raises:
            TrustRefused, OSError
        """
        opened, data = self.keeper.current() if strict else self.keeper.highest()
        if await asyncio.to_thread(self.blobs.find, opened.digest) is None:
            await asyncio.to_thread(self.blobs.put, opened.digest, data)
        return opened

    async def take(self, model: str, version: int, wanted: str) -> Taken:
        """The release that the operator asks for, all of its files on disk.

        Raises:
            ReleaseChanged, ReleaseRefused, MlflowError, TrustRefused, OSError
        """
        return await self._take(model, version, wanted, await self.trusted(strict=True))

    async def _take(self, model: str, version: int, wanted: str, opened: trust.OpenedTrust) -> Taken:
        async with self._locks[wanted]:
            found = await asyncio.to_thread(self._held, model, wanted, opened)
            if found is None or await asyncio.to_thread(self._incomplete, found):
                found = await self._fetch(model, version, wanted, opened)
        self._failed.pop(wanted, None)
        stated = (found.release.registered_model, found.release.version)
        if stated != (model, version):
            raise ReleaseRefused(f"release.json is of {stated[0]} version {stated[1]}, not {model} version {version}")
        return found

    async def known(self, model: str, wanted: str) -> Taken:
        """A release that an EdgeNode names: held, or fetched anew when the volume was lost.

        Raises:
            as take
        """
        opened = await self.trusted(strict=False)
        found = await asyncio.to_thread(self._held, model, wanted, opened)
        if found is not None and not await asyncio.to_thread(self._incomplete, found):
            return found
        until, error = self._failed.get(wanted, (0.0, Exception()))
        if self.clock() < until:
            raise error.with_traceback(None)
        try:
            version = found.release.version if found else await self._version(model, wanted)
            return await self._take(model, version, wanted, opened)
        except Exception as failure:
            self._failed[wanted] = (self.clock() + RETRY_SECONDS, failure)
            raise

    def _held(self, model: str, wanted: str, opened: trust.OpenedTrust) -> Taken | None:
        """From memory, or from the volume after a restart; judged anew whenever trust has changed."""
        known = self.taken.get(wanted)
        if known is not None and known.judged_by == opened.digest:
            return known
        if known is None and not self.index.holds(wanted):
            return None
        data = self.blobs.read(wanted)
        if data is None:
            return None
        manifest = _signed(data, opened, model)
        text = self.blobs.read(manifest.files.get(names.RELEASE_FILE, ""))
        if text is None:
            return None
        self.taken[wanted] = Taken(manifest, _parsed(text, manifest), opened.digest)
        return self.taken[wanted]

    def _incomplete(self, found: Taken) -> bool:
        """Whether the volume lost something since."""
        digests = (found.manifest.digest, *found.manifest.files.values())
        return any(self.blobs.find(digest) is None for digest in digests)

    async def _version(self, model: str, wanted: str) -> int:
        entry = await self.registry.with_tag(model, names.TAG_MANIFEST, wanted)
        if entry is None:
            raise mlflow.VersionNotFound(f"MLflow has no version of {model} with manifest {wanted}")
        return entry.version

    async def _fetch(self, model: str, version: int, wanted: str, opened: trust.OpenedTrust) -> Taken:
        """Manifest, then release.json, and only when both are in order the files, each bounded by its signed size."""
        base = await self.registry.artifact_base(model, version)
        data = await self.registry.download(f"{base}/{names.MANIFEST_FILE}", names.MAX_MANIFEST_BYTES)
        if digest_of(data) != wanted:
            raise ReleaseChanged(f"{model} version {version} has another manifest than its tag {names.TAG_MANIFEST}")
        manifest = _signed(data, opened, model)
        if names.RELEASE_FILE not in manifest.files:
            raise ReleaseRefused(f"NotARelease: the manifest names no {names.RELEASE_FILE}")
        await self._file(base, manifest, names.RELEASE_FILE, names.MAX_RELEASE_BYTES)
        text = await asyncio.to_thread(self.blobs.read, manifest.files[names.RELEASE_FILE])
        found = Taken(manifest, _parsed(text or b"", manifest), opened.digest)
        if found.release.sequence > self.now() + FUTURE_SECONDS:
            raise ReleaseRefused(f"sequence {found.release.sequence} lies more than a day in the future")
        await self._files(base, found)
        await asyncio.to_thread(self.blobs.put, wanted, data)
        await asyncio.to_thread(self._remember, found)
        self.taken[wanted] = found
        return found

    async def _files(self, base: str, found: Taken) -> None:
        sizes = _sizes(found.release)
        for path, digest in found.manifest.files.items():
            await self._file(base, found.manifest, path, sizes.get(path, names.MAX_RELEASE_BYTES))
            held = await asyncio.to_thread(self.blobs.find, digest)
            if path in sizes and held is not None and held.stat().st_size != sizes[path]:
                raise ReleaseRefused(f"{path} has {held.stat().st_size} bytes, release.json says {sizes[path]}")

    async def _file(self, base: str, manifest: Manifest, path: str, limit: int) -> None:
        digest = manifest.files[path]
        if await asyncio.to_thread(self.blobs.find, digest) is not None:
            return  # another release brought the same bytes
        try:
            with self.blobs.receive(digest) as write:

                async def keep(data: bytes) -> None:
                    await asyncio.to_thread(write, data)

                await self.registry.download_into(f"{base}/{names.RELEASE_FOLDER}/{path}", limit, keep)
        except DigestMismatch:
            raise ReleaseRefused(f"{path} was altered: its digest is not the signed one") from None
        except (mlflow.ArtifactNotFound, mlflow.ArtifactTooLarge) as error:
            raise ReleaseRefused(str(error)) from None

    def _remember(self, found: Taken) -> None:
        manifest = found.manifest
        self.index.remember(manifest.digest, manifest.files.values())
        for gone in self.index.evict(self.blobs, self.cache_bytes, manifest.digest):
            self.taken.pop(gone, None)


def _signed(data: bytes, opened: trust.OpenedTrust, model: str) -> Manifest:
    try:
        return trust.verify_manifest(data, opened, model)
    except SignatureError as error:
        raise ReleaseRefused(str(error)) from None


def _parsed(text: bytes, manifest: Manifest) -> release.Release:
    try:
        return release.parse_signed(text, manifest.files)
    except release.NotARelease as error:
        raise ReleaseRefused(f"NotARelease: {error}") from None


def _sizes(found: release.Release) -> dict[str, int]:
    """Bytes of the files whose size release.json states."""
    golden = {found.golden.file: 2 * found.golden.count * found.window.seconds}
    return golden | {variant.file: variant.bytes for variant in found.variants}
