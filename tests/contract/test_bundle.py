"""Manifests: what we sign verifies here and in OpenSSF model-signing, the reverse too, and no changed byte passes."""

from __future__ import annotations

import base64
import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from edgewright_contract import bundle, dsse, keys
from edgewright_contract.digests import digest_of
from edgewright_contract.dsse import SignatureError

_FILES = {"release.json": b"{}", "variants/l2-25-int8.onnx": b"\x00\x01", "card.md": b"# card"}
_KEY = keys.generate()
_TRUSTED = {keys.key_id(_KEY.public_key()): _KEY.public_key()}
_SIGNED = bundle.sign("nilm", _FILES, _KEY)


def test_what_is_signed_verifies() -> None:
    manifest = bundle.verify(_SIGNED, _TRUSTED)
    assert manifest.digest == digest_of(_SIGNED)
    assert manifest.files == {name: digest_of(data) for name, data in _FILES.items()}


def test_no_single_flipped_bit_is_accepted() -> None:
    accepted = []
    for position in range(len(_SIGNED) * 8):
        changed = bytearray(_SIGNED)
        changed[position // 8] ^= 1 << position % 8
        try:
            bundle.verify(bytes(changed), _TRUSTED)
        except SignatureError:
            continue
        accepted.append(position)
    assert accepted == []


@given(st.integers(0, len(_SIGNED) - 1))
def test_no_shortened_manifest_is_accepted(length: int) -> None:
    with pytest.raises(SignatureError):
        bundle.verify(_SIGNED[:length], _TRUSTED)


@given(st.binary(max_size=256))
def test_noise_is_refused_and_nothing_else_happens(noise: bytes) -> None:
    with pytest.raises(SignatureError):
        bundle.verify(noise, _TRUSTED)


def test_another_key_is_refused() -> None:
    other = keys.generate().public_key()
    with pytest.raises(SignatureError, match="no trusted key"):
        bundle.verify(_SIGNED, {keys.key_id(other): other})


@pytest.mark.parametrize("name", ["../up", "/abs", "a//b", "a/./b", "a\\b", ".hidden", ""])
def test_a_path_that_leaves_the_folder_is_not_signed(name: str) -> None:
    with pytest.raises(ValueError, match="plain names"):
        bundle.sign("nilm", {name: b""}, _KEY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "release"
    for name, data in _FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def _pems(folder: Path, key: ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
    private, public = folder.parent / "key.pem", folder.parent / "key.pub"
    private.write_bytes(keys.private_pem(key))
    public.write_bytes(keys.public_pem(key.public_key()))
    return private, public


def test_model_signing_verifies_what_we_sign(folder: Path) -> None:
    _, public = _pems(folder, _KEY)
    signature = folder.parent / "manifest.json"
    signature.write_bytes(_SIGNED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from model_signing import verifying

        verifying.Config().use_elliptic_key_verifier(public_key=public).verify(folder, signature)
        (folder / "card.md").write_bytes(b"changed")
        with pytest.raises(ValueError, match="mismatch"):
            verifying.Config().use_elliptic_key_verifier(public_key=public).verify(folder, signature)


def test_we_verify_what_model_signing_signs(folder: Path) -> None:
    private, _ = _pems(folder, _KEY)
    signature = folder.parent / "manifest.json"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from model_signing import signing

        signing.Config().use_elliptic_key_signer(private_key=private).sign(folder, signature)
    manifest = bundle.verify(signature.read_bytes(), _TRUSTED)
    assert manifest.files == {name: digest_of(data) for name, data in _FILES.items()}


def _genuine(edit: Callable[[dict[str, Any]], object]) -> bytes:
    """A statement that the trusted key really signed, and that says something odd."""
    document = json.loads(_SIGNED)
    statement = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    edit(statement)
    document["dsseEnvelope"] = dsse.seal(dsse.canonical(statement), dsse.IN_TOTO, _KEY)
    return json.dumps(document, separators=(",", ":")).encode()


def _rooted(statement: dict[str, Any]) -> None:
    """The root digest made to fit again, as a signer who goes wrong would."""
    digests = b"".join(bytes.fromhex(resource["digest"]) for resource in statement["predicate"]["resources"])
    statement["subject"][0]["digest"]["sha256"] = hashlib.sha256(digests).hexdigest()


def _resources(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[dict[str, Any]], None]:
    def edit(statement: dict[str, Any]) -> None:
        change(statement["predicate"]["resources"])
        _rooted(statement)

    return edit


def test_a_statement_signed_again_unchanged_verifies() -> None:
    assert bundle.verify(_genuine(lambda _: None), _TRUSTED).files == bundle.verify(_SIGNED, _TRUSTED).files


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (_resources(lambda r: r.append({**r[0], "digest": "0" * 64})), "stands twice"),
        (_resources(lambda r: r.append(r[0])), "stands twice"),
        (_resources(lambda r: r[0].update(name="../up")), "plain relative path"),
        (_resources(lambda r: r[0].update(name="/etc/passwd")), "plain relative path"),
        (_resources(lambda r: r[0].update(name="a" * 200)), "plain relative path"),
        (_resources(lambda r: r[0].update(name="a\n")), "plain relative path"),
        (_resources(lambda r: r[0].update(algorithm="md5")), "name and a sha256 digest"),
        (_resources(lambda r: r[0].update(algorithm="SHA256")), "name and a sha256 digest"),
        (_resources(lambda r: r[0].update(digest=r[0]["digest"].upper())), "has no sha256 digest"),
        (_resources(lambda r: r.clear()), "1 to 256 resources"),
        (
            _resources(lambda r: r.extend({**r[0], "name": f"f{number}"} for number in range(256))),
            "1 to 256 resources",
        ),
        (lambda s: s["predicate"]["resources"].reverse(), "root digest does not fit"),
        (lambda s: s["predicate"]["resources"].pop(), "root digest does not fit"),
        (lambda s: s["subject"].append(s["subject"][0]), "exactly one subject"),
        (lambda s: s["subject"][0].update(digest={}), "exactly one subject"),
        (lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"), "is needed"),
        (lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"), "is needed"),
        (lambda s: s.update(predicate=[]), "resources"),
    ],
)
def test_a_genuine_signature_over_an_odd_statement_is_refused(
    edit: Callable[[dict[str, Any]], object], told: str
) -> None:
    with pytest.raises(SignatureError, match=told):
        bundle.verify(_genuine(edit), _TRUSTED)
