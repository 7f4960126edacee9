"""A published release as a folder: `manifest.json` beside `release/`, which holds exactly the signed files."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgewright_contract import names, release, trust
from edgewright_contract.bundle import Manifest
from edgewright_contract.digests import digest_of
from edgewright_contract.dsse import SignatureError
from edgewright_pipelines.signing_keys import Role, SigningKeys


class FolderError(ValueError):
    """The folder is no release, or not one that may be believed; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Signed:
    """All bytes of a release: the manifest, and path → data of what it signs. Nothing in it is checked yet."""

    manifest: bytes
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Verified:
    """A release whose signature, digests and release.json are in order."""

    manifest: Manifest
    release: release.Release


def manifest_digest(folder: Path) -> str | None:
    """`sha256:…` of the manifest, by which nodes name a release; None for a folder that was never signed."""
    file = folder / names.MANIFEST_FILE
    return digest_of(file.read_bytes()) if file.is_file() else None


def opened_trust(keys: SigningKeys) -> trust.OpenedTrust:
    """The trust.json of a folder of keys, checked by its root.pub.

    Raises:
        KeysError: there is no such key.
        FolderError: no trust.json, or root did not sign it.
    """
    root = keys.public(Role.ROOT)
    try:
        return trust.open_trust(keys.trust_file.read_bytes(), root)
    except OSError as error:
        raise FolderError(f"{keys.trust_file} cannot be read: {error.strerror}") from None
    except SignatureError as error:
        raise FolderError(f"{keys.trust_file}: {error}") from None


def verified(stored: Signed, opened: trust.OpenedTrust) -> Verified:
    """Check signature, every digest, and that release.json agrees with the manifest.

    Raises:
        FolderError: the first thing that is wrong.
    """
    try:
        # the name only chooses which keys may sign; it is believed once the digest of its file is a signed one
        claimed = release.parse(stored.files.get(names.RELEASE_FILE, b""))
        manifest = trust.verify_manifest(stored.manifest, opened, claimed.registered_model)
        check_files(stored.files, manifest)
        return Verified(manifest, release.parse_signed(stored.files[names.RELEASE_FILE], manifest.files))
    except release.NotARelease as error:
        raise FolderError(f"NotARelease: {error}") from None
    except SignatureError as error:
        raise FolderError(f"{names.MANIFEST_FILE}: {error}") from None


def check_files(files: Mapping[str, bytes], manifest: Manifest) -> None:
    """Exactly the signed files, each with its signed digest.

    Raises:
        FolderError: a file is missing, changed, or signed by nobody.
    """
    for path, digest in manifest.files.items():
        if path not in files:
            raise FolderError(f"{path} is signed and missing")
        if digest_of(files[path]) != digest:
            raise FolderError(f"{path} was changed after signing: its digest is not the signed one")
    if unsigned := sorted(files.keys() - manifest.files.keys()):
        raise FolderError(f"{unsigned[0]} is a file that nobody signed: remove it")


def read(folder: Path) -> Signed:
    """All bytes of a folder. Links are refused: they could lead out of it.

    Raises:
        FolderError: no manifest, a link, or a file that is larger than any release has.
    """
    root = folder / names.RELEASE_FOLDER
    if not (folder / names.MANIFEST_FILE).is_file() or not root.is_dir():
        wanted = f"{names.MANIFEST_FILE} beside {names.RELEASE_FOLDER}/"
        raise FolderError(f"{folder} holds no {wanted}: name the folder of a published release")
    files = {}
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            raise FolderError(f"{path} is a link: a release has plain files only")
        if path.is_file():
            if path.stat().st_size > names.MAX_MODEL_BYTES:
                raise FolderError(f"{path} has more than {names.MAX_MODEL_BYTES} bytes")
            files[path.relative_to(root).as_posix()] = path.read_bytes()
    return Signed((folder / names.MANIFEST_FILE).read_bytes(), files)


def write(folder: Path, stored: Signed) -> Path:
    """Write the folder as a whole or not at all; one that was there before is replaced. Paths are signed paths."""
    return _write(folder, stored.files, stored.manifest)


def write_unsigned(folder: Path, files: Mapping[str, bytes]) -> Path:
    """As `write`, without a manifest: a release to look at and to score, which no node would take."""
    return _write(folder, files, None)


def _write(folder: Path, files: Mapping[str, bytes], manifest: bytes | None) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for path, data in files.items():
            file = part / names.RELEASE_FOLDER / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        if manifest is not None:
            (part / names.MANIFEST_FILE).write_bytes(manifest)
        part.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder
