"""trust.json: which keys may sign which registered models and permits, and what is revoked; signed by the root key."""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field, ValidationError

from edgewright_contract import bundle, dsse, keys, names, strictjson
from edgewright_contract.digests import Digest, digest_of
from edgewright_contract.dsse import SignatureError
from edgewright_contract.models import SignedModel, first_fault

PAYLOAD_TYPE: Final = "application/vnd.edgewright.trust+json"

Pem = Annotated[str, Field(max_length=1024)]


class ReleaseKey(SignedModel):
    """A key that may sign releases."""

    public_key: Pem
    registered_models: Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(min_length=1)]
    """Shell patterns of the registered models that it may sign, for example `nilm-*`."""


class PermitKey(SignedModel):
    """A key that may sign permits."""

    public_key: Pem


class Trust(SignedModel):
    """What a node believes. Only a higher sequence replaces it."""

    sequence: Annotated[int, Field(ge=1, lt=2**53)]
    release_keys: Annotated[list[ReleaseKey], Field(max_length=16)]
    permit_keys: Annotated[list[PermitKey], Field(max_length=16)] = []
    revoked_keys: Annotated[list[Annotated[str, Field(pattern="^[0-9a-f]{64}$")]], Field(max_length=256)] = []
    revoked_manifests: Annotated[list[Digest], Field(max_length=256)] = []
    """Digests of manifests, and of the statements in them, so that no other signature brings one back."""


@dataclass(frozen=True)
class OpenedTrust:
    """A trust document whose root signature held, with its keys parsed."""

    digest: str
    trust: Trust
    release_keys: Mapping[str, tuple[ec.EllipticCurvePublicKey, tuple[str, ...]]]
    permit_keys: Mapping[str, ec.EllipticCurvePublicKey]


def sign(trust: Trust, root: ec.EllipticCurvePrivateKey) -> bytes:
    """The signed document, as bytes to store."""
    return dsse.canonical(dsse.seal(dsse.canonical(trust.model_dump(by_alias=True)), PAYLOAD_TYPE, root))


def open_trust(data: bytes, root: ec.EllipticCurvePublicKey) -> OpenedTrust:
    """Check and parse a trust document.

    Raises:
        SignatureError: malformed, or not signed by the root key.
    """
    try:
        envelope = strictjson.loads(data, limit=names.MAX_TRUST_BYTES, what="trust.json")
        opened = dsse.open_envelope(envelope, PAYLOAD_TYPE, {keys.key_id(root): root})
        body = strictjson.loads(opened.payload, limit=names.MAX_TRUST_BYTES, what="trust.json")
        trust = Trust.model_validate(body)
        release = {}
        for entry in trust.release_keys:
            key = keys.load_public(entry.public_key.encode())
            release[keys.key_id(key)] = (key, tuple(entry.registered_models))
        permit_keys = (keys.load_public(entry.public_key.encode()) for entry in trust.permit_keys)
        permits = {keys.key_id(key): key for key in permit_keys}
    except (strictjson.StrictJsonError, keys.KeyFormatError) as error:
        raise SignatureError(str(error)) from None
    except ValidationError as error:
        raise SignatureError(f"{names.TRUST_FILE}: {first_fault(error, whole='top level')}") from None
    revoked = set(trust.revoked_keys)
    return OpenedTrust(
        digest_of(data),
        trust,
        {identity: entry for identity, entry in release.items() if identity not in revoked},
        {identity: key for identity, key in permits.items() if identity not in revoked},
    )


def verify_manifest(data: bytes, trust: OpenedTrust, registered_model: str) -> bundle.Manifest:
    """Check a release's manifest against the keys that may sign this registered model.

    Raises:
        SignatureError: no such key signed it, or the manifest is revoked.
    """
    allowed = {
        identity: key
        for identity, (key, patterns) in trust.release_keys.items()
        if any(fnmatch.fnmatchcase(registered_model, pattern) for pattern in patterns)
    }
    manifest = bundle.verify(data, allowed)
    if not {manifest.digest, manifest.statement}.isdisjoint(trust.trust.revoked_manifests):
        raise SignatureError(f"manifest {manifest.digest} is revoked")
    return manifest
