from __future__ import annotations

from typing import Any

import pytest

from edgewright_agent import verify
from edgewright_agent.refusal import Refusal
from edgewright_contract import keys, release, trust
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import AssignedModel, Assignment

NOW = 1_780_000_000
NODE = verify.Node("node-1", "amd64-6-85-avx2")


def _admitted(
    world: Any,
    wish: Assignment,
    *,
    standing: int = 0,
    previous: Assignment | None = None,
    permit: str | None = None,
    now: int = NOW,
    node: verify.Node = NODE,
) -> Reason | None:
    published = world.published
    opened = trust.open_trust(published.blobs[world.trust.removeprefix("sha256:")], published.root.public_key())
    manifest = verify.check_manifest(
        published.blobs[wish.manifest.removeprefix("sha256:")], wish.manifest, opened, "nilm-test"
    )
    data = published.blobs[verify.file_digest(manifest, "release.json").removeprefix("sha256:")]
    parsed = verify.check_release(data, manifest, "nilm-test", wish)
    held = verify.check_files(parsed, manifest, wish.variant, opened.digest)
    before = held.model_copy(update={"assignment": previous}) if previous else None
    assigned = AssignedModel(name="default/nilm", registered_model="nilm-test", live=wish, permit=permit)
    try:
        verify.check_admission(parsed, assigned, opened, node, verify.Standing(standing, before), now)
    except Refusal as refusal:
        return refusal.reason
    return None


def test_a_newer_and_the_same_sequence_are_let_in(world: Any) -> None:
    wish = world.published.release(2)
    assert _admitted(world, wish, standing=0) is None
    assert _admitted(world, wish, standing=199) is None
    assert _admitted(world, wish, standing=200) is None


def test_an_older_sequence_needs_the_previous_place_or_a_permit(world: Any) -> None:
    wish, other = world.published.release(1), world.published.release(2)
    assert _admitted(world, wish, standing=200) is Reason.DOWNGRADE
    assert _admitted(world, wish, standing=200, previous=other) is Reason.DOWNGRADE
    assert _admitted(world, wish, standing=200, previous=wish) is None
    assert _admitted(world, wish, standing=200, permit=world.published.permit(200, wish)) is None


@pytest.mark.parametrize("wrong", ["node", "from", "to", "late", "key", "noise", "model"])
def test_a_permit_covers_one_step_of_one_node_for_a_time(world: Any, wrong: str) -> None:
    published = world.published
    wish, other = published.release(1), published.release(3)
    permits = {
        "node": lambda: published.permit(200, wish, node="node-2"),
        "from": lambda: published.permit(199, wish),
        "to": lambda: published.permit(200, other),
        "late": lambda: published.permit(200, wish, not_after=NOW - 1),
        "noise": lambda: "{}",
        "model": lambda: published.permit(200, wish, model="nilm-else"),
    }
    if wrong == "key":
        honest, published.permit_key = published.permit_key, keys.generate()
        text = published.permit(200, wish)
        published.permit_key = honest
    else:
        text = permits[wrong]()
    assert _admitted(world, wish, standing=200, permit=text) is Reason.DOWNGRADE


def test_an_expired_release_is_refused_to_the_second(world: Any) -> None:
    wish = world.published.release(1, notAfter=NOW)
    assert _admitted(world, wish, now=NOW) is None
    assert _admitted(world, wish, now=NOW + 1) is Reason.EXPIRED


def test_a_release_for_another_class_is_refused(world: Any) -> None:
    wish = world.published.release(1, hardware_classes=["arm64-*", "amd64-6-8?-avx2"])
    assert _admitted(world, wish) is None
    assert _admitted(world, wish, node=verify.Node("n", "arm64-a72")) is None
    assert _admitted(world, wish, node=verify.Node("n", "amd64-6-85")) is Reason.WRONG_HARDWARE_CLASS


@pytest.mark.parametrize(("ahead", "reason"), [(10 * 365 * 86_400, None), (2**52, Reason.NOT_A_RELEASE)])
def test_a_sequence_from_the_far_future_locks_nobody_out(world: Any, ahead: int, reason: Reason | None) -> None:
    assert _admitted(world, world.published.release(1, NOW + ahead)) is reason


def _refused(world: Any, wish: Assignment, **trusted: Any) -> Refusal:
    published = world.published
    digest = published.trust(5, **trusted)
    opened = trust.open_trust(published.blobs[digest.removeprefix("sha256:")], published.root.public_key())
    data = published.blobs[wish.manifest.removeprefix("sha256:")]
    with pytest.raises(Refusal) as caught:
        verify.check_manifest(data, wish.manifest, opened, "nilm-test")
    return caught.value


def test_who_signed_decides(world: Any) -> None:
    published = world.published
    wish = published.release(1)
    mine = keys.public_pem(published.key.public_key()).decode()
    stranger = published.release(2, key=keys.generate())
    assert _refused(world, stranger).reason is Reason.BAD_SIGNATURE
    assert _refused(world, wish, revoked_keys=[keys.key_id(published.key.public_key())]).reason is Reason.BAD_SIGNATURE
    assert "revoked" in _refused(world, wish, revoked_manifests=[wish.manifest]).message
    other = trust.ReleaseKey(public_key=mine, registered_models=["heat-*"])
    assert _refused(world, wish, release_keys=[other]).reason is Reason.BAD_SIGNATURE


def test_two_keys_overlap_for_rotation(world: Any) -> None:
    published, second = world.published, keys.generate()
    both = [
        trust.ReleaseKey(public_key=keys.public_pem(key.public_key()).decode(), registered_models=["nilm-*"])
        for key in (published.key, second)
    ]
    world.trust = published.trust(2, release_keys=both)
    assert _admitted(world, published.release(1)) is None
    assert _admitted(world, published.release(2, key=second)) is None


@pytest.mark.parametrize("changed", ["version", "sequence", "variant"])
def test_what_was_assigned_must_be_what_the_release_says(world: Any, changed: str) -> None:
    wish = world.published.release(1)
    value: Any = "other" if changed == "variant" else 9
    with pytest.raises(Refusal) as caught:
        _admitted(world, wish.model_copy(update={changed: value}))
    assert caught.value.reason is Reason.NOT_A_RELEASE


def test_no_flipped_bit_of_a_manifest_passes(world: Any) -> None:
    """Every single one stands in the contract's tests; here the agent's own way in, one bit of each byte."""
    published, wish = world.published, world.published.release(1)
    opened = trust.open_trust(published.blobs[world.trust.removeprefix("sha256:")], published.root.public_key())
    data = published.blobs[wish.manifest.removeprefix("sha256:")]
    for place in range(len(data)):
        mutant = bytearray(data)
        mutant[place] ^= 1 << (place % 8)
        with pytest.raises(Refusal):
            verify.check_manifest(bytes(mutant), wish.manifest, opened, "nilm-test")


def test_the_bytes_of_each_file_are_held_to_their_digest(world: Any) -> None:
    published, wish = world.published, world.published.release(1)
    data = next(blob for blob in published.blobs.values() if blob.startswith(b"{") and b"registeredModel" in blob)
    parsed = release.parse(data)
    model = published.blobs[parsed.variant("fp32").digest.removeprefix("sha256:")]
    golden = published.blobs[parsed.golden.digest.removeprefix("sha256:")]
    verify.check_model_file(model, parsed, "fp32")
    verify.check_golden(golden, parsed)
    for check in (
        lambda: verify.check_model_file(model[:-1], parsed, "fp32"),
        lambda: verify.check_golden(golden + b"\0", parsed),
        lambda: verify.check_bytes(b"x", wish.manifest, "x"),
    ):
        with pytest.raises(Refusal) as caught:
            check()
        assert caught.value.reason is Reason.BAD_DIGEST


def test_a_file_that_breaks_its_reader_is_refused_like_any_other(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world.published.release(1)
    data = next(blob for blob in world.published.blobs.values() if blob.startswith(b"{") and b"registeredModel" in blob)
    parsed = release.parse(data)
    model = world.published.blobs[parsed.variant("fp32").digest.removeprefix("sha256:")]
    monkeypatch.setattr(verify.onnx_guard, "check", lambda data, seconds: 1 / 0)
    with pytest.raises(Refusal, match="ZeroDivisionError") as caught:
        verify.check_model_file(model, parsed, "fp32")
    assert caught.value.reason is Reason.UNSAFE_MODEL
