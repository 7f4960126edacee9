"""The manifest of a release: an OpenSSF model-signing bundle (Sigstore bundle 0.3, in-toto statement 1, key mode).

Format: https://github.com/sigstore/model-transparency, predicate `https://model_signing/signature/v1.0`.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from edgewright_contract import dsse, keys, names, strictjson
from edgewright_contract.digests import digest_of
from edgewright_contract.dsse import SignatureError

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://model_signing/signature/v1.0"
MAX_FILES: Final = 256
_HEX = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){0,7}")


@dataclass(frozen=True)
class Manifest:
    """A statement whose signature held: which file names have which digests."""

    digest: str
    """Of the bundle's own bytes: the identity of the release."""
    statement: str
    """Digest of what was signed. ECDSA lets anybody write a second signature beside a known one: it has the same."""
    key_id: str
    files: Mapping[str, str]
    """Relative POSIX path → `sha256:…`."""


def sign(name: str, files: Mapping[str, bytes], key: ec.EllipticCurvePrivateKey) -> bytes:
    """The bundle over these files, as bytes to store. Paths are relative POSIX paths.

    Raises:
        ValueError: a path that a verifier would refuse.
    """
    for path in files:
        if not _NAME.fullmatch(path):
            raise ValueError(f"{path!r}: a signed path has plain names only, at most eight deep")
    resources = [
        {"name": path, "algorithm": "sha256", "digest": hashlib.sha256(files[path]).hexdigest()}
        for path in sorted(files)
    ]
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": _root(resources)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [],
            },
            "resources": resources,
        },
    }
    hint = keys.key_id(key.public_key())
    return _layout(hint, dsse.seal(dsse.canonical(statement), dsse.IN_TOTO, key))


def _layout(hint: str, envelope: Mapping[str, Any]) -> bytes:
    """The one form of the outer bytes, as model-signing 1.1 writes it: what nobody signed leaves no choice."""
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": {key: envelope[key] for key in ("payload", "payloadType", "signatures")},
    }
    return json.dumps(bundle, separators=(",", ":")).encode()


def verify(data: bytes, trusted: Mapping[str, ec.EllipticCurvePublicKey]) -> Manifest:
    """Check the signature of a bundle and return what it states. Nothing in it is read before the signature held.

    Raises:
        SignatureError: with a sentence; any doubt is a refusal.
    """
    try:
        bundle = strictjson.loads(data, limit=names.MAX_MANIFEST_BYTES, what="manifest")
        hint, envelope = _parts(bundle)
        opened = dsse.open_envelope(envelope, dsse.IN_TOTO, trusted, hint=hint)
        if _layout(hint, envelope) != data:
            raise SignatureError("manifest: bytes that nobody signed differ from the one form that is read")
        statement = strictjson.loads(opened.payload, limit=names.MAX_MANIFEST_BYTES, what="statement")
        return Manifest(digest_of(data), digest_of(opened.payload), opened.key_id, _files(statement))
    except strictjson.StrictJsonError as error:
        raise SignatureError(str(error)) from None


def _parts(bundle: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The id of the key that is said to have signed, and the envelope."""
    match bundle:
        case {
            "mediaType": str(kind),
            "dsseEnvelope": dict(envelope),
            "verificationMaterial": {"publicKey": {"hint": str(hint)}},
        }:
            if kind == MEDIA_TYPE:
                return hint, envelope
    raise SignatureError(f"manifest: a bundle {MEDIA_TYPE} with the hint of a public key and an envelope is needed")


def _files(statement: Mapping[str, Any]) -> dict[str, str]:
    if statement.get("_type") != STATEMENT_TYPE or statement.get("predicateType") != PREDICATE_TYPE:
        raise SignatureError(f"statement: {STATEMENT_TYPE} with predicate {PREDICATE_TYPE} is needed")
    predicate = statement.get("predicate")
    resources = predicate.get("resources") if isinstance(predicate, dict) else None
    if not isinstance(resources, list) or not 1 <= len(resources) <= MAX_FILES:
        raise SignatureError(f"statement: 1 to {MAX_FILES} resources are read")
    found: dict[str, str] = {}
    for resource in resources:
        name, digest = _resource(resource)
        if name in found:
            raise SignatureError(f"statement: {name} stands twice")
        found[name] = f"sha256:{digest}"
    if _subject_digest(statement) != _root(resources):
        raise SignatureError("statement: the root digest does not fit the resources")
    return found


def _resource(resource: object) -> tuple[str, str]:
    if not isinstance(resource, dict) or resource.get("algorithm") != "sha256":
        raise SignatureError("statement: every resource has a name and a sha256 digest")
    name, digest = resource.get("name"), resource.get("digest")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SignatureError("statement: a resource name is a plain relative path")
    if not isinstance(digest, str) or not _HEX.fullmatch(digest):
        raise SignatureError(f"statement: {name} has no sha256 digest")
    return name, digest


def _subject_digest(statement: Mapping[str, Any]) -> object:
    match statement.get("subject"):
        case [{"digest": {"sha256": str(digest)}}]:
            return digest
    raise SignatureError("statement: exactly one subject with a sha256 digest is needed")


def _root(resources: list[dict[str, str]]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(r["digest"]) for r in resources)).hexdigest()
