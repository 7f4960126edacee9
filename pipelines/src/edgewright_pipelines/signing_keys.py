"""Beside `publish.to_mlflow`: the folder of keys (root, release, permit) and the trust.json that root signed."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from edgewright_contract import keys, names, trust

FIRST_SEQUENCE: Final = 1


class Role(StrEnum):
    """What a key signs: `<role>.key` and `<role>.pub` in the folder."""

    ROOT = "root"
    RELEASE = "release"
    PERMIT = "permit"


class KeysError(ValueError):
    """The folder of keys cannot be used; the text says which file and what to do."""


@dataclass(frozen=True)
class SigningKeys:
    """A folder of keys. The root key may be elsewhere (offline), so it is read only when asked for."""

    directory: Path

    def private(self, role: Role) -> ec.EllipticCurvePrivateKey:
        """A private key.

        Raises:
            KeysError: missing, readable by others, or no P-256 key.
        """
        return read_private(self.directory / f"{role}.key")

    def public(self, role: Role) -> ec.EllipticCurvePublicKey:
        """A public key.

        Raises:
            KeysError: missing, or no P-256 key.
        """
        return read_public(self.directory / f"{role}.pub")

    @property
    def trust_file(self) -> Path:
        """The signed trust document that the gateway serves."""
        return self.directory / names.TRUST_FILE


def ensure(directory: Path, *, registered_models: Sequence[str] = ("*",)) -> SigningKeys:
    """Make the keys and trust.json that are missing (files 0600, folder 0700); what exists is kept.

    registered_models: shell patterns of what the release key may sign, used only when trust.json is made.

    Raises:
        KeysError: an existing key cannot be read.
        OSError: the folder cannot be written.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = SigningKeys(directory)
    for role in Role:
        new_pair(directory, role)
    if not made.trust_file.exists():
        body = trust.Trust(
            sequence=FIRST_SEQUENCE,
            release_keys=[
                trust.ReleaseKey(public_key=_pem(made, Role.RELEASE), registered_models=list(registered_models))
            ],
            permit_keys=[trust.PermitKey(public_key=_pem(made, Role.PERMIT))],
        )
        write(made.trust_file, trust.sign(body, made.private(Role.ROOT)))
    return made


def load(directory: Path) -> SigningKeys:
    """An existing folder of keys.

    Raises:
        KeysError: it is no folder.
    """
    if not directory.is_dir():
        raise KeysError(f"{directory} is no folder: run `edgewright keys new {directory}` first")
    return SigningKeys(directory)


def new_pair(directory: Path, name: str) -> None:
    """Make `<name>.key` and `<name>.pub` where they are missing. Without its .pub a .key was not finished or moved."""
    private, public = directory / f"{name}.key", directory / f"{name}.pub"
    if public.exists():
        return
    if not private.exists():
        write(private, keys.private_pem(keys.generate()))
    write(public, keys.public_pem(read_private(private).public_key()))


def read_private(file: Path) -> ec.EllipticCurvePrivateKey:
    """A private key file.

    Raises:
        KeysError: missing, readable by others, or no P-256 key.
    """
    if not file.is_file():
        raise KeysError(f"{file} is missing: run `edgewright keys new {file.parent}` or name the right file")
    if file.stat().st_mode & 0o077:
        raise KeysError(f"{file} may be read by others: run `chmod 600 {file}`")
    try:
        return keys.load_private(file.read_bytes())
    except keys.KeyFormatError as error:
        raise KeysError(f"{file}: {error}") from None


def read_public(file: Path) -> ec.EllipticCurvePublicKey:
    """A public key file.

    Raises:
        KeysError: missing, or no P-256 key.
    """
    try:
        return keys.load_public(file.read_bytes())
    except OSError as error:
        told = f"{file} cannot be read: {error.strerror}"
        raise KeysError(f"{told}; name the folder that `edgewright keys new` made, or copy the file there") from None
    except keys.KeyFormatError as error:
        raise KeysError(f"{file}: {error}") from None


def _pem(made: SigningKeys, role: Role) -> str:
    return keys.public_pem(made.public(role)).decode()


def write(file: Path, data: bytes) -> None:
    """Never a half-written key, and never one that others could read for a moment."""
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(file)
