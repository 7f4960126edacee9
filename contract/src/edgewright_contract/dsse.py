"""DSSE envelopes (Dead Simple Signing Envelope 1.0.2), ECDSA P-256: what manifests, trust and permits come in."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from edgewright_contract import keys

IN_TOTO: Final = "application/vnd.in-toto+json"


class SignatureError(ValueError):
    """Nothing that we trust signed these bytes."""


@dataclass(frozen=True)
class Opened:
    """A payload whose signature held, and the id of the key that made it."""

    payload: bytes
    key_id: str


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding: the bytes that are really signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, payload_type: str, key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    """The envelope of a payload with one signature."""
    signature = key.sign(pae(payload_type, payload), keys.SIGNATURE_ALGORITHM)
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
    }


def open_envelope(
    envelope: object, payload_type: str, trusted: Mapping[str, ec.EllipticCurvePublicKey], *, hint: str | None = None
) -> Opened:
    """The payload, if one of the trusted keys (by key id) signed it. A hint only chooses; it is never believed.

    Raises:
        SignatureError: malformed, of another type, or signed by no trusted key.
    """
    if not isinstance(envelope, dict) or set(envelope) != {"payload", "payloadType", "signatures"}:
        raise SignatureError("a DSSE envelope has exactly payload, payloadType and signatures")
    if envelope["payloadType"] != payload_type:
        raise SignatureError(f"payloadType must be {payload_type}")
    payload = _decoded(envelope["payload"], "payload")
    signature = _signature(envelope["signatures"])
    candidates = trusted if hint is None else {hint: trusted[hint]} if hint in trusted else {}
    message = pae(payload_type, payload)
    for identity, key in candidates.items():
        try:
            key.verify(signature, message, keys.SIGNATURE_ALGORITHM)
        except InvalidSignature:
            continue
        return Opened(payload, identity)
    raise SignatureError("no trusted key signed this")


def _signature(signatures: object) -> bytes:
    """The one signature. A second one would be bytes that nobody answers for; so would a key id in plain text."""
    match signatures:
        case [{"sig": sig, "keyid": "", **rest}] if not rest:
            return _decoded(sig, "sig")
    raise SignatureError("exactly one signature with sig and an empty keyid is read")


def _decoded(text: object, what: str) -> bytes:
    if not isinstance(text, str):
        raise SignatureError(f"{what} must be base64 text")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SignatureError(f"{what} is not base64") from None
    if base64.b64encode(data).decode() != text:  # spare bits: two texts, two digests, one content
        raise SignatureError(f"{what} is not canonical base64")
    return data


def canonical(value: Mapping[str, Any]) -> bytes:
    """Sorted, compact UTF-8 JSON: one value, one digest."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
