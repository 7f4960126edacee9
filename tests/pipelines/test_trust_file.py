"""Rotation and revocation in a folder of keys: two keys overlap, one goes, and breaking off loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright_contract import bundle, keys, names, trust
from edgewright_contract.dsse import SignatureError
from edgewright_pipelines import release_folder, signing_keys, trust_file
from edgewright_pipelines.signing_keys import KeysError, Role, SigningKeys

FILES = {"release.json": b"{}"}


@pytest.fixture
def folder(tmp_path: Path) -> SigningKeys:
    return signing_keys.ensure(tmp_path / "keys", registered_models=["nilm-*"])


def states(folder: SigningKeys) -> dict[str, str]:
    return {Path(entry.file or "-").name: entry.state for entry in trust_file.overview(folder).keys}


def test_new_keys_are_private_trusted_and_kept(folder: SigningKeys) -> None:
    assert states(folder) == {"permit.pub": "trusted", "release.pub": "trusted", "root.pub": "root"}
    assert folder.directory.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.directory.glob("*.key")} == {0o600}
    before = {file.name: file.read_bytes() for file in folder.directory.iterdir()}
    signing_keys.ensure(folder.directory)
    assert {file.name: file.read_bytes() for file in folder.directory.iterdir()} == before


def test_rotation_overlaps_until_the_old_key_is_revoked(folder: SigningKeys) -> None:
    old = folder.private(Role.RELEASE)
    signed_before = bundle.sign("r", FILES, old)
    identity = trust_file.rotate(folder, Role.RELEASE)
    new = folder.private(Role.RELEASE)
    assert keys.key_id(new.public_key()) == identity != keys.key_id(old.public_key())
    signed_after = bundle.sign("r", FILES, new)
    both = release_folder.opened_trust(folder)
    assert both.trust.sequence == 2
    for signed in (signed_before, signed_after):
        trust.verify_manifest(signed, both, "nilm-a")
        with pytest.raises(SignatureError):  # the new key inherits what the old one may sign
            trust.verify_manifest(signed, both, "other")
    former = keys.key_id(old.public_key())
    assert trust_file.revoke(folder, former[:10]) == [former]
    after = release_folder.opened_trust(folder)
    assert after.trust.sequence == 3
    trust.verify_manifest(signed_after, after, "nilm-a")
    with pytest.raises(SignatureError, match="no trusted key"):
        trust.verify_manifest(signed_before, after, "nilm-a")
    assert states(folder)[f"release-{former[:8]}.pub"] == "revoked"


@pytest.mark.parametrize("calls", range(1, 9))
def test_rotation_killed_at_any_rename_goes_on(
    folder: SigningKeys, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Files are moved by rename and replace only; the process dies before the nth of them."""
    former = keys.key_id(folder.public(Role.RELEASE))
    left = calls

    class Killed(BaseException):
        pass

    def dying(name: str) -> None:
        real = getattr(Path, name)

        def move(self: Path, target: Path) -> Path:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return real(self, target)

        monkeypatch.setattr(Path, name, move)

    dying("rename")
    dying("replace")
    try:
        trust_file.rotate(folder, Role.RELEASE)
    except Killed:
        monkeypatch.undo()
        trust_file.rotate(folder, Role.RELEASE)
    else:
        assert calls == 8, "fewer moves than before: count again"
    opened = release_folder.opened_trust(folder)
    assert opened.trust.sequence == 2
    assert set(opened.release_keys) == {former, keys.key_id(folder.private(Role.RELEASE).public_key())}
    assert len(opened.release_keys) == 2
    assert not list(folder.directory.glob("*.next.*"))
    assert (folder.directory / f"release-{former[:8]}.key").exists()


def test_the_root_key_may_be_elsewhere(folder: SigningKeys, tmp_path: Path) -> None:
    away = (folder.directory / "root.key").rename(tmp_path / "root.key")
    with pytest.raises(KeysError, match=r"root\.key is missing"):
        trust_file.rotate(folder, Role.RELEASE)
    trust_file.rotate(folder, Role.RELEASE, away)
    other = tmp_path / "other"
    signing_keys.ensure(other)
    with pytest.raises(KeysError, match="is not the private half"):
        trust_file.rotate(folder, Role.PERMIT, other / "root.key")
    away.chmod(0o644)
    with pytest.raises(KeysError, match="chmod 600"):
        trust_file.rotate(folder, Role.PERMIT, away)


def test_a_release_is_revoked_by_its_folder_whoever_signs_it_again(folder: SigningKeys, tmp_path: Path) -> None:
    signed = bundle.sign("r", FILES, folder.private(Role.RELEASE))
    release = release_folder.write(tmp_path / "release", release_folder.Signed(signed, FILES))
    gone = trust_file.revoke(folder, str(release))
    assert len(gone) == 2
    with pytest.raises(SignatureError, match="is revoked"):
        trust.verify_manifest(signed, release_folder.opened_trust(folder), "nilm-a")
    again = bundle.sign("r", FILES, folder.private(Role.RELEASE))  # ECDSA: other bytes, same statement
    assert again != signed
    with pytest.raises(SignatureError, match="is revoked"):
        trust.verify_manifest(again, release_folder.opened_trust(folder), "nilm-a")
    with pytest.raises(KeysError, match="is revoked already"):
        trust_file.revoke(folder, str(release))


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("xyz", "is no key id"),
        ("abc", "is no key id"),
        ("deadbeef", "no key begins with deadbeef"),
        (".", r"manifest\.json cannot be read"),
    ],
)
def test_what_cannot_be_revoked_is_told(folder: SigningKeys, what: str, told: str) -> None:
    with pytest.raises(KeysError, match=told):
        trust_file.revoke(folder, what)


def test_the_key_in_use_and_root_are_not_revoked(folder: SigningKeys) -> None:
    with pytest.raises(KeysError, match="--rotate release"):
        trust_file.revoke(folder, keys.key_id(folder.public(Role.RELEASE)))
    with pytest.raises(KeysError, match=r"another root\.pub"):
        trust_file.revoke(folder, keys.key_id(folder.public(Role.ROOT)))
    with pytest.raises(KeysError, match=r"nodes hold root\.pub"):
        trust_file.rotate(folder, Role.ROOT)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: (path / names.TRUST_FILE).unlink(), r"trust\.json cannot be read"),
        (lambda path: (path / names.TRUST_FILE).write_bytes(b"{}"), r"is root\.pub the right one"),
        (lambda path: (path / "root.pub").write_bytes(b"x"), r"root\.pub: not a PEM"),
        (lambda path: (path / "root.pub").unlink(), r"root\.pub cannot be read"),
    ],
)
def test_a_damaged_folder_is_a_sentence(folder: SigningKeys, damage: object, told: str) -> None:
    damage(folder.directory)  # type: ignore[operator]
    with pytest.raises(KeysError, match=told):
        trust_file.overview(folder)


def test_the_lists_end_with_a_sentence(folder: SigningKeys) -> None:
    for _ in range(15):
        trust_file.rotate(folder, Role.RELEASE)
    with pytest.raises(KeysError, match=r"trust\.json: release_?[kK]eys: List should have at most 16"):
        trust_file.rotate(folder, Role.RELEASE)
