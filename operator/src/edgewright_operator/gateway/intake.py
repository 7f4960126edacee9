"""How a release comes in: downloaded from MLflow, signature and every digest checked, then kept by digest."""

from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from edgewright_contract import names, release, trust
from edgewright_contract.bundle import Manifest
from edgewright_contract.digests import digest_of
from edgewright_contract.dsse import SignatureError
from edgewright_operator import mlflow
from edgewright_operator.gateway.blobs import Blobs


class ReleaseChanged(Exception):
    """The version's manifest is not the one that was asked for."""


class ReleaseRefused(Exception):
    """Not signed by whom we trust, altered, or no release; the text says which."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A verified release and which digests belong to it."""

    manifest: Manifest
    release: release.Release


@dataclass(slots=True)
class Intake:
    """Takes releases in and remembers those of this process; a restart asks MLflow again."""

    registry: mlflow.MlflowRegistry
    blobs: Blobs
    trust_file: Path
    root: ec.EllipticCurvePublicKey
    taken: dict[str, Taken] = field(default_factory=dict)

    def trusted(self) -> trust.OpenedTrust:
        """The trust document, checked, its bytes kept by digest.

        Raises:
            ReleaseRefused: missing, or not signed by the root key.
        """
        try:
            data = self.trust_file.read_bytes()
            opened = trust.open_trust(data, self.root)
        except OSError as error:
            raise ReleaseRefused(f"trust.json cannot be read: {error.strerror}") from None
        except SignatureError as error:
            raise ReleaseRefused(str(error)) from None
        if self.blobs.get(opened.digest) is None:
            self.blobs.put(opened.digest, data)
        return opened

    async def take(self, model: str, version: int, wanted: str) -> Taken:
        """The release, verified anew unless this process did so before.

        Raises:
            ReleaseChanged, ReleaseRefused, MlflowError
        """
        opened = self.trusted()
        if (known := self.taken.get(wanted)) is not None:
            self._recheck(wanted, opened, model)
            if (known.release.registered_model, known.release.version) != (model, version):
                raise ReleaseRefused(f"manifest {wanted} is of version {known.release.version}, not {version}")
            return known
        base = await self.registry.artifact_base(model, version)
        data = await self.registry.download(f"{base}/{names.MANIFEST_FILE}", names.MAX_MANIFEST_BYTES)
        if digest_of(data) != wanted:
            raise ReleaseChanged(f"{model} version {version} has another manifest than its tag {names.TAG_MANIFEST}")
        manifest = _signed(data, opened, model)
        files = {path: await self._file(base, path, digest) for path, digest in manifest.files.items()}
        try:
            parsed = release.parse(files.get(names.RELEASE_FILE, b""))
        except release.NotARelease as error:
            raise ReleaseRefused(f"NotARelease: {error}") from None
        if (parsed.registered_model, parsed.version) != (model, version):
            raise ReleaseRefused(f"release.json is of {parsed.registered_model} version {parsed.version}")
        for path, content in files.items():
            self.blobs.put(manifest.files[path], content)
        self.blobs.put(manifest.digest, data)
        self.taken[wanted] = Taken(manifest, parsed)
        return self.taken[wanted]

    async def _file(self, base: str, path: str, digest: str) -> bytes:
        try:
            data = await self.registry.download(f"{base}/{names.RELEASE_FOLDER}/{path}", names.MAX_MODEL_BYTES)
        except (mlflow.ArtifactNotFound, mlflow.ArtifactTooLarge) as error:
            raise ReleaseRefused(str(error)) from None
        if digest_of(data) != digest:
            raise ReleaseRefused(f"{path} was altered: its digest is not the signed one")
        return data

    def _recheck(self, wanted: str, opened: trust.OpenedTrust, model: str) -> None:
        """Trust may have changed since: a revoked key or manifest is refused from now on."""
        data = self.blobs.get(wanted)
        if data is None:
            del self.taken[wanted]
            raise mlflow.Unavailable(f"the cache lost manifest {wanted}: ask again")
        _signed(data, opened, model)


def _signed(data: bytes, opened: trust.OpenedTrust, model: str) -> Manifest:
    try:
        return trust.verify_manifest(data, opened, model)
    except SignatureError as error:
        raise ReleaseRefused(str(error)) from None
