"""ECDSA P-256 keys: made, read and named. The key id is what OpenSSF model-signing calls the public key hint."""

import hashlib

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

SIGNATURE_ALGORITHM = ec.ECDSA(hashes.SHA256())


class KeyFormatError(ValueError):
    """The PEM text is not an ECDSA P-256 key."""


def generate() -> ec.EllipticCurvePrivateKey:
    """A new P-256 key from the operating system's randomness."""
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS#8 PEM without a password; the caller guards the file (mode 0600)."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    """SubjectPublicKeyInfo PEM."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def load_private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Read a private key.

    Raises:
        KeyFormatError: not PEM, encrypted, or not P-256.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise KeyFormatError(f"not an unencrypted PEM private key: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise KeyFormatError("an ECDSA P-256 private key is needed")
    return key


def load_public(pem: bytes) -> ec.EllipticCurvePublicKey:
    """Read a public key.

    Raises:
        KeyFormatError: not PEM or not P-256.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError as error:
        raise KeyFormatError(f"not a PEM public key: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise KeyFormatError("an ECDSA P-256 public key is needed")
    return key


def key_id(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of the PEM text, 64 hex digits (the `hint` of OpenSSF model-signing 1.1)."""
    return hashlib.sha256(public_pem(key)).hexdigest()
