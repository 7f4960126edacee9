"""Beside publishing: what trust.json says, and how it changes: a new key beside the old one, or a revocation."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from edgewright_contract import bundle, keys, names, trust
from edgewright_contract.digests import digest_of, is_digest
from edgewright_contract.dsse import SignatureError
from edgewright_contract.models import first_fault
from edgewright_pipelines.signing_keys import KeysError, Role, SigningKeys, new_pair, read_private, read_public, write

_ID = re.compile(r"[0-9a-f]{8,64}")
ROTATED: Final = (Role.RELEASE, Role.PERMIT)


@dataclass(frozen=True, slots=True)
class Listed:
    """One key: where its files are, and what trust.json says of it."""

    role: str
    identity: str
    state: str
    """`root`, `trusted`, `revoked`, or `unlisted`: not in trust.json."""
    registered_models: tuple[str, ...]
    file: str | None
    private: bool

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "role": self.role,
            "id": self.identity,
            "state": self.state,
            "registeredModels": list(self.registered_models),
            "file": self.file,
            "private": self.private,
        }


@dataclass(frozen=True, slots=True)
class Overview:
    """All keys of a folder, and the trust document of its sequence."""

    keys: tuple[Listed, ...]
    sequence: int
    digest: str
    revoked_manifests: tuple[str, ...]


def overview(folder: SigningKeys) -> Overview:
    """What the folder holds and what trust.json says.

    Raises:
        KeysError: a file that cannot be read, or a trust.json that root.pub does not fit.
    """
    opened = _opened(folder)
    found = [_listed(file, opened.trust, folder) for file in sorted(folder.directory.glob("*.pub"))]
    held = {entry.identity for entry in found}
    found += [
        Listed("release", _id(entry.public_key), "trusted", tuple(entry.registered_models), None, False)
        for entry in opened.trust.release_keys
        if _id(entry.public_key) not in held
    ]
    return Overview(tuple(found), opened.trust.sequence, opened.digest, tuple(opened.trust.revoked_manifests))


def rotate(folder: SigningKeys, role: Role, root: Path | None = None) -> str:
    """A new key for the role, trusted beside the old one until that is revoked; gives the new key's id.

    The old files stay as `<role>-<first digits of its id>`. root: the root key's file, if it is kept elsewhere.
    Broken off in the middle, it goes on where it was.

    Raises:
        KeysError: root does not rotate this way, the root key is missing, or trust.json is full.
    """
    if role not in ROTATED:
        raise KeysError("the root key does not rotate here: nodes hold root.pub, so a new one must be brought to them")
    opened, directory = _opened(folder), folder.directory
    following = f"{role}.next"
    new_pair(directory, following)
    public = read_public(directory / f"{following}.pub")
    pem = keys.public_pem(public).decode()
    listed = [*opened.release_keys, *opened.permit_keys]
    if keys.key_id(public) not in listed:
        _sign(folder, opened.trust, _added(opened.trust, folder, role, pem), root)
    _move(directory, role, following)
    return keys.key_id(public)


def _move(directory: Path, role: Role, following: str) -> None:
    """The key in use gets a name of its own, the following one its place. Any step may be the last before a kill."""
    if (used := directory / f"{role}.pub").exists():
        former = keys.key_id(read_public(used))
        for suffix in ("key", "pub"):
            if (old := directory / f"{role}.{suffix}").exists():
                old.rename(directory / f"{role}-{former[:8]}.{suffix}")
    for suffix in ("key", "pub"):
        if (new := directory / f"{following}.{suffix}").exists():
            new.rename(directory / f"{role}.{suffix}")


def revoke(folder: SigningKeys, what: str, root: Path | None = None) -> list[str]:
    """Put a key or a release onto the lists of revoked ones; gives what was put there.

    what: a key id or its first digits (8 or more), a manifest's digest, or the folder of a release. A folder is
    better than a digest: its statement is revoked too, which no second signature can change.

    Raises:
        KeysError: nothing fits, it is the key that signs now, or the root key is missing.
    """
    opened = _opened(folder)
    if (path := Path(what)).is_dir():
        return _revoke_manifests(folder, opened, _digests(path, opened), root)
    if is_digest(what):
        return _revoke_manifests(folder, opened, [what], root)
    identity = _matching(folder, opened, what)
    for role in ROTATED:
        if (folder.directory / f"{role}.pub").exists() and identity == keys.key_id(folder.public(role)):
            raise KeysError(
                f"{identity[:12]} is the {role} key in use: first run "
                f"`edgewright keys new {folder.directory} --rotate {role}`, then revoke it"
            )
    if identity in opened.trust.revoked_keys:
        raise KeysError(f"key {identity[:12]} is revoked already")
    _sign(folder, opened.trust, _without(opened.trust, identity), root)
    return [identity]


def _opened(folder: SigningKeys) -> trust.OpenedTrust:
    root = folder.public(Role.ROOT)
    try:
        return trust.open_trust(folder.trust_file.read_bytes(), root)
    except OSError as error:
        raise KeysError(f"{folder.trust_file} cannot be read: {error.strerror}") from None
    except SignatureError as error:
        raise KeysError(f"{folder.trust_file}: {error}; is root.pub the right one?") from None


def _sign(folder: SigningKeys, before: trust.Trust, changed: dict[str, Any], root: Path | None) -> None:
    body = {**before.model_dump(), **changed, "sequence": before.sequence + 1}
    key = read_private(root or folder.directory / f"{Role.ROOT}.key")
    if keys.key_id(key.public_key()) != keys.key_id(folder.public(Role.ROOT)):
        raise KeysError(f"{root or 'root.key'} is not the private half of {folder.directory / 'root.pub'}")
    try:
        data = trust.sign(trust.Trust.model_validate(body), key)
    except ValidationError as error:
        raise KeysError(f"{names.TRUST_FILE}: {first_fault(error)}") from None
    if len(data) > names.MAX_TRUST_BYTES:
        raise KeysError(f"{names.TRUST_FILE} would have {len(data)} bytes, {names.MAX_TRUST_BYTES} are read: drop some")
    write(folder.trust_file, data)


def _added(before: trust.Trust, folder: SigningKeys, role: Role, pem: str) -> dict[str, Any]:
    if role is Role.PERMIT:
        return {"permit_keys": [*before.permit_keys, trust.PermitKey(public_key=pem)]}
    former = keys.key_id(folder.public(role))
    patterns = next((e.registered_models for e in before.release_keys if _id(e.public_key) == former), ["*"])
    return {"release_keys": [*before.release_keys, trust.ReleaseKey(public_key=pem, registered_models=patterns)]}


def _without(before: trust.Trust, identity: str) -> dict[str, Any]:
    """Revoked, and no longer listed: the lists have an end, and a revoked key needs no other line."""
    return {
        "release_keys": [entry for entry in before.release_keys if _id(entry.public_key) != identity],
        "permit_keys": [entry for entry in before.permit_keys if _id(entry.public_key) != identity],
        "revoked_keys": [*before.revoked_keys, identity],
    }


def _revoke_manifests(
    folder: SigningKeys, opened: trust.OpenedTrust, digests: list[str], root: Path | None
) -> list[str]:
    new = [digest for digest in digests if digest not in opened.trust.revoked_manifests]
    if not new:
        raise KeysError(f"{digests[0]} is revoked already")
    _sign(folder, opened.trust, {"revoked_manifests": [*opened.trust.revoked_manifests, *new]}, root)
    return new


def _digests(release: Path, opened: trust.OpenedTrust) -> list[str]:
    try:
        data = (release / names.MANIFEST_FILE).read_bytes()
        manifest = bundle.verify(data, {identity: key for identity, (key, _) in opened.release_keys.items()})
    except OSError as error:
        raise KeysError(f"{release / names.MANIFEST_FILE} cannot be read: {error.strerror}") from None
    except SignatureError as error:
        raise KeysError(f"{release}: {error}: no node takes it, so there is nothing to revoke") from None
    return [digest_of(data), manifest.statement]


def _matching(folder: SigningKeys, opened: trust.OpenedTrust, what: str) -> str:
    if not _ID.fullmatch(what):
        raise KeysError(f"{what} is no key id (8 or more hex digits), no digest (sha256:…) and no folder of a release")
    if keys.key_id(folder.public(Role.ROOT)).startswith(what):
        raise KeysError("the root key cannot be revoked by what it signs: bring nodes another root.pub")
    known = {*opened.release_keys, *opened.permit_keys, *opened.trust.revoked_keys}
    known |= {keys.key_id(read_public(file)) for file in folder.directory.glob("*.pub")}
    found = sorted(identity for identity in known if identity.startswith(what))
    if len(found) != 1 and not re.fullmatch(r"[0-9a-f]{64}", what):
        told = "more than one key begins" if found else "no key begins"
        raise KeysError(f"{told} with {what}: `edgewright keys list {folder.directory}` shows them")
    return found[0] if found else what


def _listed(file: Path, body: trust.Trust, folder: SigningKeys) -> Listed:
    identity = keys.key_id(read_public(file))
    release = {_id(entry.public_key): tuple(entry.registered_models) for entry in body.release_keys}
    listed = {*release, *(_id(entry.public_key) for entry in body.permit_keys)}
    if identity == keys.key_id(folder.public(Role.ROOT)):
        state = "root"
    elif identity in body.revoked_keys:
        state = "revoked"
    else:
        state = "trusted" if identity in listed else "unlisted"
    role = re.split(r"[-.]", file.stem)[0]
    return Listed(role, identity, state, release.get(identity, ()), str(file), file.with_suffix(".key").exists())


def _id(pem: str) -> str:
    return keys.key_id(keys.load_public(pem.encode()))
