"""Keys, certificates, tokens and kubeconfigs for one control plane; written before `control_plane` starts anything."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFE = dt.timedelta(days=365)
_BACKDATE = dt.timedelta(hours=1)  # a clock that is set back a little must not make a fresh certificate invalid
_SERVER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


@dataclass(frozen=True)
class Pair:
    """Paths of a certificate and its private key (PEM)."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Credentials:
    """Everything secret that one control plane runs on; the files have mode 0600, their folder 0700."""

    directory: Path
    ca: Path
    server: Pair
    etcd_ca: Path
    etcd_server: Pair
    etcd_client: Pair
    service_account_key: Path
    service_account_public: Path
    tokens: Path
    admin_token: str = field(repr=False)
    controller_manager_token: str = field(repr=False)


def prepare(directory: Path, now: dt.datetime) -> Credentials:
    """Write what is missing in `directory`; tokens are new each time, keys and certificates stay (one year)."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    cluster = _Authority.load_or_create(directory, "ca", now)
    # A second authority: who may speak to etcd is nobody but the API server, not every holder of a cluster certificate.
    etcd = _Authority.load_or_create(directory, "etcd-ca", now)
    admin, controller_manager = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    tokens = directory / "tokens.csv"
    write_private(
        tokens,
        f'{admin},edgewright-admin,edgewright-admin,"system:masters"\n'
        f"{controller_manager},system:kube-controller-manager,system:kube-controller-manager\n",
    )
    key, public = _service_account_keys(directory)
    return Credentials(
        directory=directory,
        ca=cluster.path,
        server=cluster.issue("apiserver"),
        etcd_ca=etcd.path,
        etcd_server=etcd.issue("etcd-server"),
        etcd_client=etcd.issue("etcd-client"),
        service_account_key=key,
        service_account_public=public,
        tokens=tokens,
        admin_token=admin,
        controller_manager_token=controller_manager,
    )


def write_kubeconfig(path: Path, url: str, ca: Path, user: str, token: str) -> Path:
    """Write a kubeconfig (mode 0600) with the authority inside, so that the file can be moved; give back `path`."""
    authority = base64.b64encode(ca.read_bytes()).decode()
    document: Mapping[str, object] = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "edgewright",
        "clusters": [{"name": "edgewright", "cluster": {"server": url, "certificate-authority-data": authority}}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [
            {"name": "edgewright", "context": {"cluster": "edgewright", "user": user, "namespace": "default"}}
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_private(path, json.dumps(document, indent=1) + "\n")  # JSON is YAML


def write_private(path: Path, content: str | bytes) -> Path:
    """Replace `path` by `content` in one step, readable by its owner only; give back `path`."""
    data = content.encode() if isinstance(content, str) else content
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
    return fresh.replace(path)


@dataclass(frozen=True)
class _Authority:
    directory: Path
    path: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    now: dt.datetime

    @classmethod
    def load_or_create(cls, directory: Path, name: str, now: dt.datetime) -> _Authority:
        path, key_path = directory / f"{name}.crt", directory / f"{name}.key"
        if path.exists() and key_path.exists():
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
            key = serialization.load_pem_private_key(key_path.read_bytes(), None)
            # Half of its life must be left, because the certificates that it signs end with it.
            if isinstance(key, ec.EllipticCurvePrivateKey) and certificate.not_valid_after_utc > now + _LIFE / 2:
                return cls(directory, path, certificate, key, now)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(f"edgewright-{name}")
        certificate = (
            _builder(subject, subject, key.public_key(), now, now + _LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_private(key_path, _pem(key))
        write_private(path, certificate.public_bytes(serialization.Encoding.PEM))
        return cls(directory, path, certificate, key, now)

    def issue(self, name: str) -> Pair:
        """A fresh certificate for loopback, good for server and client."""
        pair = Pair(self.directory / f"{name}.crt", self.directory / f"{name}.key")
        key = ec.generate_private_key(ec.SECP256R1())
        addresses = [x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "10.96.0.1")]
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(
                _name(name), self.certificate.subject, key.public_key(), self.now, self.certificate.not_valid_after_utc
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName([*map(x509.DNSName, _SERVER_NAMES), *addresses]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        write_private(pair.key, _pem(key))
        write_private(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM))
        return pair


def _service_account_keys(directory: Path) -> tuple[Path, Path]:
    private, public = directory / "sa.key", directory / "sa.pub"
    if not (private.exists() and public.exists()):
        key = ec.generate_private_key(ec.SECP256R1())
        shown = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        write_private(private, _pem(key))
        write_private(public, shown)
    return private, public


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: dt.datetime, until: dt.datetime
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - _BACKDATE,
        not_valid_after=until,
    )


def _key_usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
