"""A permit: a signed statement that lets a node (or all) go back to an older sequence."""

import base64
from collections.abc import Mapping
from typing import Annotated, Final

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field, ValidationError

from edgewright_contract import dsse, strictjson
from edgewright_contract.digests import Digest
from edgewright_contract.dsse import SignatureError
from edgewright_contract.models import SignedModel, first_fault

PAYLOAD_TYPE: Final = "application/vnd.edgewright.permit+json"
MAX_PERMIT_BYTES: Final = 4096


class Permit(SignedModel):
    """Allows exactly one step back."""

    registered_model: Annotated[str, Field(min_length=1, max_length=128)]
    node: Annotated[str, Field(min_length=1, max_length=253)]
    """Node name, or `*` for every node."""
    from_sequence: Annotated[int, Field(ge=0, lt=2**53)]
    """The newest sequence that may be left."""
    to_manifest: Digest
    not_after: Annotated[int, Field(ge=0, lt=2**53)]
    """UTC seconds."""


def sign(permit: Permit, key: ec.EllipticCurvePrivateKey) -> str:
    """The signed permit as one line of JSON, as it stands in EdgeNode.spec."""
    return dsse.canonical(dsse.seal(dsse.canonical(permit.model_dump(by_alias=True)), PAYLOAD_TYPE, key)).decode()


def open_permit(text: str, permit_keys: Mapping[str, ec.EllipticCurvePublicKey]) -> Permit:
    """Check and parse a permit.

    Raises:
        SignatureError: malformed, or signed by no permit key.
    """
    try:
        envelope = strictjson.loads(text.encode(), limit=MAX_PERMIT_BYTES, what="permit")
        opened = dsse.open_envelope(envelope, PAYLOAD_TYPE, permit_keys)
        return Permit.model_validate(strictjson.loads(opened.payload, limit=MAX_PERMIT_BYTES, what="permit"))
    except strictjson.StrictJsonError as error:
        raise SignatureError(str(error)) from None
    except ValidationError as error:
        raise SignatureError(first_fault(error, "permit")) from None


def peek(text: str) -> Permit | None:
    """What a permit says, unverified: for who wrote it and wants to know when it ends; none if it cannot be read."""
    try:
        payload = base64.b64decode(strictjson.loads(text.encode(), limit=MAX_PERMIT_BYTES, what="permit")["payload"])
        return Permit.model_validate(strictjson.loads(payload, limit=MAX_PERMIT_BYTES, what="permit"))
    except (strictjson.StrictJsonError, ValidationError, ValueError, KeyError, TypeError):
        return None


def allows(permit: Permit, *, registered_model: str, node: str, from_sequence: int, to_manifest: str, now: int) -> bool:
    """Whether this permit lets the node leave `from_sequence` for `to_manifest` at UTC second `now`."""
    return (
        permit.registered_model == registered_model
        and permit.node in ("*", node)
        and from_sequence <= permit.from_sequence
        and permit.to_manifest == to_manifest
        and now <= permit.not_after
    )
