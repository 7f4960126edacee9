"""A thousand mutants of a signed manifest, of a fixed seed: none is accepted. Made of bytes, JSON and signatures."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from edgewright_contract import bundle, dsse, keys, permit, trust
from edgewright_contract.dsse import SignatureError

COUNT = 1000
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
KEY, OTHER, STRANGER = keys.generate(), keys.generate(), keys.generate()
TRUSTED = {keys.key_id(key.public_key()): key.public_key() for key in (KEY, OTHER)}
FILES = {"release.json": b"{}", "variants/l2-25-int8.onnx": b"\x00\x01", "card.md": b"# card"}
SIGNED = bundle.sign("nilm", FILES, KEY)
SECOND = bundle.sign("nilm", {**FILES, "card.md": b"# another"}, OTHER)
Document = dict[str, Any]


def _write(document: Document) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _statement(document: Document) -> Document:
    return dict(json.loads(base64.b64decode(document["dsseEnvelope"]["payload"])))


def _with_statement(statement: Document) -> bytes:
    """The statement changed and the signature left: what an attacker without the key can do."""
    document = json.loads(SIGNED)
    document["dsseEnvelope"]["payload"] = base64.b64encode(dsse.canonical(statement)).decode()
    return _write(document)


def _with_signature(signature: bytes) -> bytes:
    document = json.loads(SIGNED)
    document["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    return _write(document)


def _paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from _paths(inner, (*at, key))


def _edited(document: Document, rng: random.Random) -> Document:
    """One place replaced, removed or doubled."""
    changed = json.loads(json.dumps(document))
    place = rng.choice([path for path in _paths(changed) if path])
    owner = changed
    for key in place[:-1]:
        owner = owner[key]
    odd = [None, True, 0, -1, 2**64, "", "x", "..", "sha256:" + "0" * 64, [], {}, [[]], {"": 0}, 1.5]
    kind = rng.randrange(3)
    if kind == 0:
        owner[place[-1]] = rng.choice(odd)
    elif kind == 1:
        del owner[place[-1]]
    elif isinstance(owner, list):
        owner.append(owner[place[-1]])
    else:
        owner[rng.choice(["alg", "keyid", "extra", "url", "urls"])] = rng.choice(odd)
    return dict(changed)


def by_bytes(rng: random.Random) -> bytes:
    data = bytearray(SIGNED)
    at, length = rng.randrange(len(data)), rng.randrange(1, 40)
    match rng.randrange(6):
        case 0:
            data[at] = (data[at] + rng.randrange(1, 256)) % 256
        case 1:
            del data[at : at + length]
        case 2:
            data[at:at] = bytes(rng.randrange(256) for _ in range(length))
        case 3:
            data[at:at] = data[at : at + length]
        case 4:
            data[at : at + length] = bytes(reversed(data[at : at + length]))
        case _:
            cut = rng.randrange(len(SECOND))
            data = bytearray(SIGNED[:at] + SECOND[cut:])
    return bytes(data)


def by_space(rng: random.Random) -> bytes:
    """White space, escapes and order: another text of the same JSON."""
    document = json.loads(SIGNED)
    text = SIGNED.decode()
    match rng.randrange(5):
        case 0:
            at = rng.choice([index for index, sign in enumerate(text) if sign in "{}[]:,"])
            return (text[: at + 1] + rng.choice([" ", "\n", "\t", "\r"]) + text[at + 1 :]).encode()
        case 1:
            return json.dumps(document, indent=rng.randrange(9)).encode()
        case 2:
            shuffled = dict(rng.sample(list(document.items()), len(document)))
            return _write(shuffled) if list(shuffled) != list(document) else SIGNED + b"\n"
        case 3:
            letter = rng.choice("dsgeiv")
            return text.replace(letter, f"\\u00{ord(letter):02x}", 1).encode()
        case _:
            return rng.choice([b"\xef\xbb\xbf" + SIGNED, text.encode("utf-16"), SIGNED + b"\0", b" " + SIGNED])


def by_json(rng: random.Random) -> bytes:
    return _write(_edited(json.loads(SIGNED), rng))


def by_statement(rng: random.Random) -> bytes:
    return _with_statement(_edited(_statement(json.loads(SIGNED)), rng))


def by_double_key(rng: random.Random) -> bytes:
    """The first or the last of two equal keys is genuine: parsers differ on which one wins."""
    text, genuine = SIGNED.decode(), json.loads(SIGNED)
    key = rng.choice(["mediaType", "dsseEnvelope", "verificationMaterial"])
    value = rng.choice([genuine[key], json.loads(SECOND)[key], None, "x"])
    extra = f"{json.dumps(key)}:{json.dumps(value)}"
    return (f"{{{extra},{text[1:]}" if rng.random() < 0.5 else f"{text[:-1]},{extra}}}").encode()


def by_second_signature(rng: random.Random) -> bytes:
    document = json.loads(SIGNED)
    genuine = document["dsseEnvelope"]["signatures"][0]
    other = json.loads(SECOND)["dsseEnvelope"]["signatures"][0]
    noise = {"sig": base64.b64encode(bytes(rng.randrange(256) for _ in range(70))).decode(), "keyid": ""}
    named = {**genuine, "keyid": rng.choice([*TRUSTED, "root", "x"])}
    choices = [[genuine, noise], [noise, genuine], [genuine, other], [other, genuine], [genuine, genuine], [named], []]
    document["dsseEnvelope"]["signatures"] = rng.choice(choices)
    return _write(document)


def by_hint(rng: random.Random) -> bytes:
    """The hint of another trusted key, of a stranger, or of nobody: a hint chooses and is never believed."""
    document = json.loads(SIGNED)
    stranger = keys.key_id(STRANGER.public_key())
    genuine = keys.key_id(KEY.public_key())
    wrong = [keys.key_id(OTHER.public_key()), stranger, genuine.upper(), genuine[:-1], genuine + " ", "", "../root"]
    document["verificationMaterial"]["publicKey"]["hint"] = rng.choice(wrong)
    if rng.random() < 0.3:
        document["verificationMaterial"]["publicKey"] = {"rawBytes": keys.public_pem(STRANGER.public_key()).decode()}
    return _write(document)


def by_another_key(rng: random.Random) -> bytes:
    """A genuine signature of somebody who is not trusted, under a trusted hint or the own one."""
    document = json.loads(bundle.sign("nilm", {**FILES, "n": rng.randbytes(4)}, STRANGER))
    if rng.random() < 0.7:
        document["verificationMaterial"]["publicKey"]["hint"] = rng.choice(list(TRUSTED))
    return _write(document)


def by_swap(rng: random.Random) -> bytes:
    """Parts of two genuine bundles, mixed."""
    one, two = json.loads(SIGNED), json.loads(SECOND)
    part = rng.choice(["payload", "signatures", "hint"])
    if part == "hint":
        one["verificationMaterial"] = two["verificationMaterial"]
    else:
        one["dsseEnvelope"][part] = two["dsseEnvelope"][part]
        if rng.random() < 0.5:
            one["verificationMaterial"] = two["verificationMaterial"]
            one["dsseEnvelope"]["payloadType"] = rng.choice([dsse.IN_TOTO, "application/json"])
    return _write(one)


def by_type(rng: random.Random) -> bytes:
    """Algorithm and type confusion: what was signed as one thing is shown as another."""
    payload = dsse.canonical(_statement(json.loads(SIGNED)))
    kind = rng.choice([trust.PAYLOAD_TYPE, permit.PAYLOAD_TYPE, "application/json", "", dsse.IN_TOTO + " "])
    envelope = dsse.seal(payload, kind, KEY)
    envelope["payloadType"] = rng.choice([dsse.IN_TOTO, kind])
    document = json.loads(SIGNED)
    document["dsseEnvelope"] = {key: envelope[key] for key in ("payload", "payloadType", "signatures")}
    return _write(document)


RSA_KEY = rsa.generate_private_key(65537, 2048)
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def by_signature(rng: random.Random) -> bytes:
    """Signatures that are none: zero, too large, padded, raw, of another hash, curve or algorithm."""
    genuine = base64.b64decode(json.loads(SIGNED)["dsseEnvelope"]["signatures"][0]["sig"])
    r, s = decode_dss_signature(genuine)
    message = dsse.pae(dsse.IN_TOTO, base64.b64decode(json.loads(SIGNED)["dsseEnvelope"]["payload"]))
    made = [
        lambda: encode_dss_signature(0, 0),
        lambda: encode_dss_signature(r, 0),
        lambda: encode_dss_signature(0, s),
        lambda: encode_dss_signature(r, s + ORDER),
        lambda: encode_dss_signature(r + ORDER, s),
        lambda: encode_dss_signature(s, r),
        lambda: encode_dss_signature(r, rng.randrange(1, ORDER)),
        lambda: genuine + rng.randbytes(rng.randrange(1, 9)),
        lambda: b"\x30\x81" + genuine[1:],
        lambda: genuine[:2] + b"\x02\x22\x00" + genuine[3:],
        lambda: r.to_bytes(32) + s.to_bytes(32),
        lambda: b"",
        lambda: KEY.sign(message, ec.ECDSA(hashes.SHA512())),
        lambda: KEY.sign(message + b" ", keys.SIGNATURE_ALGORITHM),
        lambda: ec.generate_private_key(ec.SECP384R1()).sign(message, keys.SIGNATURE_ALGORITHM),
        lambda: RSA_KEY.sign(message, padding.PKCS1v15(), hashes.SHA256()),
        lambda: ED_KEY.sign(message),
    ]
    return _with_signature(rng.choice(made)())


def by_base64(rng: random.Random) -> bytes:
    document = json.loads(SIGNED)
    owner, key = rng.choice([(document["dsseEnvelope"], "payload"), (document["dsseEnvelope"]["signatures"][0], "sig")])
    text = owner[key]
    at = rng.randrange(len(text))
    owner[key] = rng.choice(
        [text + "=", text + "\n", text[:at] + " " + text[at:], text + "AAAA", text[:-1], "=" + text, text + "====", "!"]
    )
    return _write(document)


def by_bomb(rng: random.Random) -> bytes:
    depth = rng.randrange(33, 20_000)
    opening, closing = rng.choice([("[", "]"), ('{"a":', "}")])
    inner = opening * depth + ("0" if opening != "[" else "") + closing * depth
    return rng.choice([inner, SIGNED.decode()[:-1] + ',"x":' + inner + "}", "[" * depth, SIGNED.decode() * 60]).encode()


KINDS: tuple[Callable[[random.Random], bytes], ...] = (
    by_bytes,
    by_space,
    by_json,
    by_statement,
    by_double_key,
    by_second_signature,
    by_hint,
    by_another_key,
    by_swap,
    by_type,
    by_signature,
    by_base64,
    by_bomb,
)


def mutants() -> Iterator[tuple[str, bytes]]:
    """A thousand different ones; every kind has its turn until its forms are used up."""
    rng = random.Random(20261124)
    seen = {SIGNED, SECOND}
    while len(seen) < COUNT + 2:
        for kind in KINDS:
            mutant = kind(rng)
            if mutant not in seen and len(seen) < COUNT + 2:
                seen.add(mutant)
                yield kind.__name__, mutant


def test_none_of_a_thousand_mutants_is_accepted() -> None:
    bundle.verify(SIGNED, TRUSTED)
    kinds: Counter[str] = Counter()
    accepted = []
    for kind, mutant in mutants():
        kinds[kind] += 1
        try:  # any other exception than the one that callers expect fails the test too
            bundle.verify(mutant, TRUSTED)
        except SignatureError:
            continue
        accepted.append((kind, mutant))
    assert accepted == []
    assert kinds.total() == COUNT
    assert len(kinds) == len(KINDS)


def test_a_second_signature_that_anybody_can_write_is_of_the_same_statement() -> None:
    """ECDSA holds for (r, s) and (r, n - s) alike: the digest of the bundle differs, that of the statement does not."""
    genuine = bundle.verify(SIGNED, TRUSTED)
    r, s = decode_dss_signature(base64.b64decode(json.loads(SIGNED)["dsseEnvelope"]["signatures"][0]["sig"]))
    twin = _with_signature(encode_dss_signature(r, ORDER - s))
    found = bundle.verify(twin, TRUSTED)
    assert found.digest != genuine.digest
    assert (found.statement, found.files) == (genuine.statement, genuine.files)


@pytest.mark.parametrize("field", ["digest", "statement"])
def test_a_revoked_release_does_not_come_back_under_the_twin_signature(field: str) -> None:
    genuine = bundle.verify(SIGNED, TRUSTED)
    pem = keys.public_pem(KEY.public_key()).decode()
    body = trust.Trust(
        sequence=1,
        release_keys=[trust.ReleaseKey(public_key=pem, registered_models=["*"])],
        revoked_manifests=[genuine.digest, genuine.statement] if field == "statement" else [genuine.digest],
    )
    opened = trust.open_trust(trust.sign(body, OTHER), OTHER.public_key())
    with pytest.raises(SignatureError, match="is revoked"):
        trust.verify_manifest(SIGNED, opened, "nilm")
    if field == "statement":
        r, s = decode_dss_signature(base64.b64decode(json.loads(SIGNED)["dsseEnvelope"]["signatures"][0]["sig"]))
        with pytest.raises(SignatureError, match="is revoked"):
            trust.verify_manifest(_with_signature(encode_dss_signature(r, ORDER - s)), opened, "nilm")
