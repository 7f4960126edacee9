"""trust.json: who may sign what, two keys at once, revocation, and that nobody but root writes it."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgewright_contract import bundle, dsse, keys, permit, trust
from edgewright_contract.dsse import SignatureError

ROOT, OLD, NEW, PERMIT = (keys.generate() for _ in range(4))
FILES = {"release.json": b"{}"}


def pem(key: ec.EllipticCurvePrivateKey) -> str:
    return keys.public_pem(key.public_key()).decode()


def identity(key: ec.EllipticCurvePrivateKey) -> str:
    return keys.key_id(key.public_key())


def document(**changed: object) -> trust.Trust:
    body = {
        "sequence": 3,
        "release_keys": [trust.ReleaseKey(public_key=pem(key), registered_models=["nilm-*"]) for key in (OLD, NEW)],
        "permit_keys": [trust.PermitKey(public_key=pem(PERMIT))],
    }
    return trust.Trust.model_validate({**body, **changed})


def opened(**changed: object) -> trust.OpenedTrust:
    return trust.open_trust(trust.sign(document(**changed), ROOT), ROOT.public_key())


def test_two_keys_overlap_and_revoking_one_leaves_the_other() -> None:
    signed = {key: bundle.sign("r", FILES, key) for key in (OLD, NEW)}
    both = opened()
    for key in (OLD, NEW):
        assert trust.verify_manifest(signed[key], both, "nilm-a").key_id == identity(key)
    later = opened(sequence=4, revoked_keys=[identity(OLD)])
    trust.verify_manifest(signed[NEW], later, "nilm-a")
    with pytest.raises(SignatureError, match="no trusted key"):
        trust.verify_manifest(signed[OLD], later, "nilm-a")


@pytest.mark.parametrize("name", ["kettle", "Nilm-a", "xnilm-a", ""])
def test_a_key_signs_only_its_own_models(name: str) -> None:
    signed = bundle.sign("r", FILES, OLD)
    with pytest.raises(SignatureError, match="no trusted key"):
        trust.verify_manifest(signed, opened(), name)


def test_a_revoked_permit_key_opens_no_permit() -> None:
    text = permit.sign(
        permit.Permit(
            registered_model="nilm-a", node="*", from_sequence=9, to_manifest="sha256:" + "1" * 64, not_after=1
        ),
        PERMIT,
    )
    permit.open_permit(text, opened().permit_keys)
    with pytest.raises(SignatureError):
        permit.open_permit(text, opened(revoked_keys=[identity(PERMIT)]).permit_keys)


@pytest.mark.parametrize("key", [OLD, PERMIT], ids=["release", "permit"])
def test_only_root_signs_trust(key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(SignatureError, match="no trusted key"):
        trust.open_trust(trust.sign(document(), key), ROOT.public_key())


def test_a_manifest_or_permit_is_no_trust_document() -> None:
    """The same key, the same JSON, signed as another thing."""
    body = dsse.canonical(document().model_dump(by_alias=True))
    for kind in (dsse.IN_TOTO, permit.PAYLOAD_TYPE):
        envelope = dsse.seal(body, kind, ROOT)
        for shown in (kind, trust.PAYLOAD_TYPE):
            with pytest.raises(SignatureError):
                trust.open_trust(dsse.canonical({**envelope, "payloadType": shown}), ROOT.public_key())


def test_no_single_flipped_bit_of_a_trust_document_is_accepted() -> None:
    signed = trust.sign(document(), ROOT)
    for position in range(len(signed) * 8):
        changed = bytearray(signed)
        changed[position // 8] ^= 1 << position % 8
        try:
            trust.open_trust(bytes(changed), ROOT.public_key())
        except SignatureError:
            continue
        pytest.fail(f"bit {position} changed and nobody minded")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"sequence": 0}, "sequence"),
        ({"sequence": 2**53}, "sequence"),
        ({"unknown": 1}, "unknown"),
        ({"releaseKeys": [{"publicKey": "x", "registeredModels": ["*"]}]}, "PEM"),
        (
            {"releaseKeys": [{"publicKey": pem(OLD), "registeredModels": []}]},
            "json: releaseKeys.0.registeredModels: ",
        ),
        ({"revokedKeys": ["zz"]}, "revokedKeys"),
    ],
)
def test_a_genuine_document_that_says_nonsense_is_refused(changed: dict[str, object], told: str) -> None:
    body = {**json.loads(document().model_dump_json(by_alias=True)), **changed}
    signed = dsse.canonical(dsse.seal(dsse.canonical(body), trust.PAYLOAD_TYPE, ROOT))
    with pytest.raises(SignatureError, match=told):
        trust.open_trust(signed, ROOT.public_key())


def test_a_duplicate_key_inside_what_root_signed_is_refused() -> None:
    body = dsse.canonical(document().model_dump(by_alias=True))
    twice = body[:-1] + b',"sequence":99}'
    with pytest.raises(SignatureError, match="stands twice"):
        trust.open_trust(dsse.canonical(dsse.seal(twice, trust.PAYLOAD_TYPE, ROOT)), ROOT.public_key())


def test_a_genuine_permit_that_says_nonsense_names_the_place() -> None:
    body = {
        "registeredModel": "nilm",
        "node": "*",
        "fromSequence": "x",
        "toManifest": "sha256:" + "0" * 64,
        "notAfter": 1,
    }
    signed = dsse.canonical(dsse.seal(dsse.canonical(body), permit.PAYLOAD_TYPE, PERMIT)).decode()
    with pytest.raises(SignatureError, match=r"^permit\.fromSequence: "):
        permit.open_permit(signed, {identity(PERMIT): PERMIT.public_key()})
