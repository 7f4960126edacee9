"""Between download and self-test: trust → manifest → release.json → files, on the very bytes that are used. Pure.

Each function takes bytes and refuses in doubt; where the bytes come from (gateway or disk) is the caller's matter.
"""

import fnmatch
from dataclasses import dataclass
from typing import Final

from edgewright_agent import onnx_guard
from edgewright_agent.refusal import Refusal
from edgewright_agent.state import Held
from edgewright_contract import names, permit, release, trust
from edgewright_contract.bundle import Manifest
from edgewright_contract.conditions import Reason
from edgewright_contract.digests import digest_of
from edgewright_contract.dsse import SignatureError
from edgewright_contract.edgenode import AssignedModel, Assignment


@dataclass(frozen=True)
class Node:
    """What a release is judged against beside the keys."""

    name: str
    hardware_class: str


@dataclass(frozen=True)
class Standing:
    """What a release is judged against that this node had before."""

    sequence: int
    """Of what went live last under this registered model; 0 where nothing did."""
    previous: Held | None
    """Good once on this node: going back to it needs no permit."""


MAX_SEQUENCE_JUMP: Final = 20 * 366 * 86_400
"""Seconds that a sequence may lie ahead: a clock ten years slow installs, 2^53 would lock out what comes later."""


def check_manifest(data: bytes, digest: str, opened: trust.OpenedTrust, registered_model: str) -> Manifest:
    """The signed list of files.

    Raises:
        Refusal: BadDigest or BadSignature.
    """
    check_bytes(data, digest, "manifest")
    try:
        return trust.verify_manifest(data, opened, registered_model)
    except SignatureError as error:
        raise Refusal(Reason.BAD_SIGNATURE, str(error)) from None


def file_digest(manifest: Manifest, name: str) -> str:
    """The signed digest of a file.

    Raises:
        Refusal: NotARelease, the manifest does not name it.
    """
    found = manifest.files.get(name)
    if found is None:
        raise Refusal(Reason.NOT_A_RELEASE, f"the signed manifest names no {name}")
    return found


def check_release(data: bytes, manifest: Manifest, registered_model: str, wish: Assignment) -> release.Release:
    """release.json, if it is signed, well-formed, and the one that was assigned.

    Raises:
        Refusal: BadDigest or NotARelease.
    """
    check_bytes(data, file_digest(manifest, names.RELEASE_FILE), names.RELEASE_FILE)
    try:
        parsed = release.parse(data)
    except release.NotARelease as error:
        raise Refusal(Reason.NOT_A_RELEASE, str(error)) from None
    stated = (parsed.registered_model, parsed.version, parsed.sequence)
    wanted = (registered_model, wish.version, wish.sequence)
    if stated != wanted:
        raise Refusal(Reason.NOT_A_RELEASE, f"the release says it is {stated}, the EdgeNode asks for {wanted}")
    return parsed


def check_files(parsed: release.Release, manifest: Manifest, variant: str, trust_digest: str) -> Held:
    """The files to fetch; release.json and manifest must agree on them.

    `trust_digest` names the trust document that the manifest was checked with.

    Raises:
        Refusal: NotARelease.
    """
    try:
        chosen = parsed.variant(variant)
    except KeyError:
        raise Refusal(Reason.NOT_A_RELEASE, f"the release has no variant {variant}") from None
    for name, digest in ((chosen.file, chosen.digest), (parsed.golden.file, parsed.golden.digest)):
        if file_digest(manifest, name) != digest:
            raise Refusal(Reason.NOT_A_RELEASE, f"manifest and release.json give {name} different digests")
    wish = Assignment(version=parsed.version, sequence=parsed.sequence, manifest=manifest.digest, variant=variant)
    return Held(
        assignment=wish,
        release=file_digest(manifest, names.RELEASE_FILE),
        golden=parsed.golden.digest,
        file=chosen.digest,
        trust=trust_digest,
    )


def check_model_file(data: bytes, parsed: release.Release, variant: str) -> None:
    """The ONNX file: signed bytes, signed length, nothing but plain operators.

    Raises:
        Refusal: BadDigest or UnsafeModel.
    """
    chosen = parsed.variant(variant)
    check_bytes(data, chosen.digest, chosen.file)
    if len(data) != chosen.bytes:
        raise Refusal(Reason.BAD_DIGEST, f"{chosen.file}: {len(data)} bytes, the release says {chosen.bytes}")
    try:
        onnx_guard.check(data, parsed.window.seconds)
    except onnx_guard.UnsafeModelError as error:
        raise Refusal(Reason.UNSAFE_MODEL, f"{chosen.file}: {error}") from None
    except Exception as error:  # whatever a foreign file breaks, it is the file that goes, not the agent
        raise Refusal(Reason.UNSAFE_MODEL, f"{chosen.file}: reading it failed with {error!r}"[:512]) from error


def check_golden(data: bytes, parsed: release.Release) -> None:
    """The golden windows: signed bytes, of the size that the release says.

    Raises:
        Refusal: BadDigest or NotARelease.
    """
    check_bytes(data, parsed.golden.digest, parsed.golden.file)
    wanted = 2 * parsed.golden.count * parsed.window.seconds
    if len(data) != wanted:
        raise Refusal(Reason.NOT_A_RELEASE, f"{parsed.golden.file}: {len(data)} bytes, the release says {wanted}")


def check_admission(
    parsed: release.Release,
    wish: AssignedModel,
    opened: trust.OpenedTrust,
    node: Node,
    standing: Standing,
    now: int,
) -> None:
    """Whether this node may install the release anew: hardware class, expiry, and the sequence both ways.

    `now` is UTC seconds that are never before the newest signature accepted.

    Raises:
        Refusal: WrongHardwareClass, Expired, NotARelease (a sequence far in the future) or Downgrade.
    """
    patterns = parsed.hardware_classes
    if patterns and not any(fnmatch.fnmatchcase(node.hardware_class, pattern) for pattern in patterns):
        allowed = ", ".join(patterns)
        raise Refusal(Reason.WRONG_HARDWARE_CLASS, f"class {node.hardware_class} is not among {allowed}")
    if parsed.not_after is not None and now > parsed.not_after:
        raise Refusal(Reason.EXPIRED, f"not to be installed after UTC second {parsed.not_after}")
    if parsed.sequence > now + MAX_SEQUENCE_JUMP:
        raise Refusal(Reason.NOT_A_RELEASE, f"sequence {parsed.sequence} is no time at which it can have been signed")
    if parsed.sequence >= standing.sequence or wish.live is None:
        return
    if standing.previous is not None and standing.previous.assignment.manifest == wish.live.manifest:
        return
    _check_permit(wish, opened, node, standing.sequence, wish.live.manifest, now)


def _check_permit(
    wish: AssignedModel, opened: trust.OpenedTrust, node: Node, leaving: int, manifest: str, now: int
) -> None:
    if wish.permit is None:
        raise Refusal(Reason.DOWNGRADE, f"older than the sequence {leaving} that serves, and there is no permit")
    try:
        allowed = permit.allows(
            permit.open_permit(wish.permit, opened.permit_keys),
            registered_model=wish.registered_model,
            node=node.name,
            from_sequence=leaving,
            to_manifest=manifest,
            now=now,
        )
    except SignatureError as error:
        raise Refusal(Reason.DOWNGRADE, f"permit: {error}") from None
    if not allowed:
        raise Refusal(Reason.DOWNGRADE, f"the permit does not cover the step from sequence {leaving} to {manifest}")


def check_bytes(data: bytes, digest: str, what: str) -> None:
    """Refuse bytes that are not those of the digest.

    Raises:
        Refusal: BadDigest.
    """
    found = digest_of(data)
    if found != digest:
        raise Refusal(Reason.BAD_DIGEST, f"{what}: {found} instead of {digest}")
