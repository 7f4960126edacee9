"""A variant's files: from the gateway into the store, bounded by what is signed already, and verified from there."""

from cryptography.hazmat.primitives.asymmetric import ec

from edgewright_agent import verify
from edgewright_agent.download import Gateway
from edgewright_agent.refusal import Delay, Refusal
from edgewright_agent.state import Held
from edgewright_agent.store import BlobError, Store
from edgewright_contract import names, trust
from edgewright_contract import release as releases
from edgewright_contract.bundle import Manifest
from edgewright_contract.conditions import Reason
from edgewright_contract.dsse import SignatureError
from edgewright_contract.edgenode import Assignment


async def release(
    wish: Assignment, registered_model: str, opened: trust.OpenedTrust, gateway: Gateway, store: Store
) -> Held:
    """Bring all files of the assigned variant into the store.

    Raises:
        Refusal, Delay: as the checks and the download say.
        OSError: the disk refuses.
    """
    manifest = await _manifest(wish.manifest, registered_model, opened, gateway, store)
    data = await _release_file(manifest, gateway, store)
    parsed = verify.check_release(data, manifest, registered_model, wish)
    held = verify.check_files(parsed, manifest, wish.variant, opened.digest)
    await files(held, parsed, gateway, store)
    return held


async def candidate(
    manifest_digest: str,
    variant: str,
    registered_model: str,
    opened: trust.OpenedTrust,
    gateway: Gateway,
    store: Store,
) -> tuple[Held, releases.Release]:
    """Which files a variant has that is only to be measured: the signed release says which version it is.

    The files themselves are not here yet.

    Raises:
        Refusal, Delay: as the checks and the download say.
        OSError: the disk refuses.
    """
    manifest = await _manifest(manifest_digest, registered_model, opened, gateway, store)
    data = await _release_file(manifest, gateway, store)
    try:
        parsed = releases.parse(data)
    except releases.NotARelease as error:
        raise Refusal(Reason.NOT_A_RELEASE, str(error)) from None
    named = {"version": parsed.version, "sequence": parsed.sequence}
    wish = Assignment.model_validate({**named, "manifest": manifest_digest, "variant": variant})
    parsed = verify.check_release(data, manifest, registered_model, wish)
    return verify.check_files(parsed, manifest, variant, opened.digest), parsed


async def files(held: Held, parsed: releases.Release, gateway: Gateway, store: Store) -> None:
    """Bring golden windows and model file of a variant into the store, which hashes them as it takes them.

    Raises:
        Delay: as the download says.
        OSError: the disk refuses.
    """
    await gateway.fetch(store, held.golden, names.MAX_GOLDEN_BYTES)
    await gateway.fetch(store, held.file, parsed.variant(held.assignment.variant).bytes)


def verified(held: Held, registered_model: str, opened: trust.OpenedTrust, store: Store) -> releases.Release:
    """Check signature and digest of everything again, on the bytes that lie on disk now.

    Raises:
        Refusal: any doubt.
    """
    wish = held.assignment
    try:
        manifest = stored_manifest(wish.manifest, registered_model, opened, store)
        parsed = verify.check_release(
            store.read(held.release, names.MAX_RELEASE_BYTES), manifest, registered_model, wish
        )
        if verify.check_files(parsed, manifest, wish.variant, held.trust) != held:
            raise Refusal(Reason.NOT_A_RELEASE, "the state names other files than the release")
        verify.check_golden(store.read(held.golden, names.MAX_GOLDEN_BYTES), parsed)
        verify.check_model_file(store.read(held.file, names.MAX_MODEL_BYTES), parsed, wish.variant)
    except BlobError as error:
        raise Refusal(Reason.STORAGE_ERROR, str(error)) from None
    return parsed


def stored_manifest(digest: str, registered_model: str, opened: trust.OpenedTrust, store: Store) -> Manifest:
    """The manifest that lies in the store, if its signature holds under this trust.

    Raises:
        Refusal: BadSignature, BadDigest or StorageError.
    """
    try:
        data = store.read(digest, names.MAX_MANIFEST_BYTES)
    except BlobError as error:
        raise Refusal(Reason.STORAGE_ERROR, str(error)) from None
    return verify.check_manifest(data, digest, opened, registered_model)


def verified_as_admitted(held: Held, registered_model: str, root: ec.EllipticCurvePublicKey, store: Store) -> None:
    """Check everything under the trust document that let it in: a revocation stops installs, not what runs.

    Raises:
        Refusal: any doubt.
    """
    verified(held, registered_model, stored_trust(held.trust, store, root), store)


def stored_trust(digest: str, store: Store, root: ec.EllipticCurvePublicKey) -> trust.OpenedTrust:
    """The trust document that lies in the store.

    Raises:
        Refusal: TrustRefused or StorageError.
    """
    try:
        return trust.open_trust(store.read(digest, names.MAX_TRUST_BYTES), root)
    except BlobError as error:
        raise Refusal(Reason.STORAGE_ERROR, f"trust: {error}") from None
    except SignatureError as error:
        raise Refusal(Reason.TRUST_REFUSED, f"trust: {error}") from None


async def _manifest(
    digest: str, registered_model: str, opened: trust.OpenedTrust, gateway: Gateway, store: Store
) -> Manifest:
    data = await _blob(digest, names.MAX_MANIFEST_BYTES, gateway, store)
    return verify.check_manifest(data, digest, opened, registered_model)


async def _release_file(manifest: Manifest, gateway: Gateway, store: Store) -> bytes:
    return await _blob(verify.file_digest(manifest, names.RELEASE_FILE), names.MAX_RELEASE_BYTES, gateway, store)


async def _blob(digest: str, limit: int, gateway: Gateway, store: Store) -> bytes:
    await gateway.fetch(store, digest, limit)
    try:
        return store.read(digest, limit)
    except BlobError as error:
        raise Delay(Reason.STORAGE_ERROR, str(error)) from None
