"""A release as a folder: written whole, verified whole, and found by `resolve_release` without a registry."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewright_contract import bundle, keys, names
from edgewright_pipelines import release, release_folder, resolve, signing_keys
from edgewright_pipelines.release import UnsignedRelease
from edgewright_pipelines.release_folder import FolderError, Signed
from edgewright_pipelines.signing_keys import Role, SigningKeys


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> SigningKeys:
    return signing_keys.ensure(tmp_path_factory.mktemp("keys") / "keys", registered_models=["nilm-*"])


@pytest.fixture
def make(small_release: Callable[..., UnsignedRelease], trusted: SigningKeys) -> Callable[..., Signed]:
    def call(name: str = "nilm-test", version: int = 1, sequence: int = 100) -> Signed:
        files = small_release(name).numbered(version, sequence)
        return Signed(bundle.sign(name, files, trusted.private(Role.RELEASE)), files)

    return call


def check(folder: Path, trusted: SigningKeys) -> release_folder.Verified:
    return release_folder.verified(release_folder.read(folder), release_folder.opened_trust(trusted))


def test_what_is_written_reads_back_and_verifies(
    make: Callable[..., Signed], trusted: SigningKeys, tmp_path: Path
) -> None:
    stored = make()
    folder = release_folder.write(tmp_path / "r", stored)
    assert release_folder.read(folder) == stored
    assert check(folder, trusted).release.version == 1
    release_folder.write(folder, make(version=2))
    assert check(folder, trusted).release.version == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda f: (f / "release/card.md").unlink(), "card.md is signed and missing"),
        (lambda f: (f / "release/card.md").write_bytes(b"x"), "card.md was changed after signing"),
        (lambda f: (f / "release/run.sh").write_bytes(b"x"), "run.sh is a file that nobody signed"),
        (lambda f: (f / "release/link").symlink_to("/etc/passwd"), "is a link"),
        (lambda f: (f / "release/deep").symlink_to(f / "release/variants"), "is a link"),
        (lambda f: (f / "release/release.json").unlink(), "NotARelease: release.json: not JSON"),
        (lambda f: (f / "manifest.json").unlink(), "holds no manifest.json beside release/"),
        (lambda f: (f / "manifest.json").write_bytes(b"{}"), "manifest.json: manifest: a bundle"),
        (
            lambda f: (f / "release/variants/base-fp32.onnx").rename(f / "release/variants/base-int8.onnx"),
            "base-fp32.onnx is signed and missing",
        ),
    ],
)
def test_any_change_is_told(
    make: Callable[..., Signed], trusted: SigningKeys, tmp_path: Path, damage: Callable[[Path], None], told: str
) -> None:
    folder = release_folder.write(tmp_path / "r", make())
    damage(folder)
    with pytest.raises(FolderError) as refused:
        check(folder, trusted)
    assert told in str(refused.value)


def test_a_model_that_the_key_may_not_sign_is_refused(
    make: Callable[..., Signed], trusted: SigningKeys, tmp_path: Path
) -> None:
    folder = release_folder.write(tmp_path / "r", make("kettle"))
    with pytest.raises(FolderError, match="no trusted key signed this"):
        check(folder, trusted)


def test_a_genuine_bundle_of_model_signing_is_no_release(trusted: SigningKeys, tmp_path: Path) -> None:
    """Cryptographically in order, signed by a trusted key, and still refused."""
    model = tmp_path / "m" / names.RELEASE_FOLDER
    model.mkdir(parents=True)
    (model / "weights.bin").write_bytes(b"1")
    private = tmp_path / "key.pem"
    private.write_bytes(keys.private_pem(trusted.private(Role.RELEASE)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from model_signing import signing

        config = signing.Config().use_elliptic_key_signer(private_key=private)
        config.sign(model, tmp_path / "m" / names.MANIFEST_FILE)
    stored = release_folder.read(tmp_path / "m")
    opened = release_folder.opened_trust(trusted)
    manifest = bundle.verify(stored.manifest, {identity: key for identity, (key, _) in opened.release_keys.items()})
    release_folder.check_files(stored.files, manifest)
    with pytest.raises(FolderError, match="NotARelease"):
        release_folder.verified(stored, opened)


def test_without_a_registry_the_newest_local_release_counts(make: Callable[..., Signed], tmp_path: Path) -> None:
    def put(name: str, version: int, sequence: int) -> Path:
        folder = tmp_path / "releases" / name / str(version)
        return release_folder.write(folder, make(name, version, sequence))

    old, new, other = put("nilm-a", 9, 100), put("nilm-a", 10, 300), put("nilm-b", 1, 200)
    (tmp_path / "releases" / "nilm-a" / "11" / "release").mkdir(parents=True)
    (tmp_path / "releases" / "nilm-a" / "11" / "release" / "release.json").write_bytes(b"half")
    for text, wanted in (
        ("latest", new),
        ("nilm-b/latest", other),
        ("nilm-a/9", old),
        ("nilm-a/10", new),
        (str(old), old),
    ):
        assert resolve.resolve_release(text, workspace=tmp_path) == wanted
    for text in ("nilm-a/7", "nilm-c/1", "nilm-a/production"):
        with pytest.raises(resolve.ResolveError, match=f"no release {text} below"):
            resolve.resolve_release(text, workspace=tmp_path)


@pytest.mark.parametrize("text", ["", "a/b/c", "../x", "/nowhere", "a/../b", "a/", "*/1", ".hidden/1"])
def test_what_names_no_release_is_told(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no release|name one, or name/version|holds no release"):
        resolve.resolve_release(text, workspace=tmp_path)


def test_published_again_the_files_stay_and_the_number_is_new(small_release: Callable[..., UnsignedRelease]) -> None:
    first = small_release().numbered(1, 100)
    renewed = release.again(first, not_after=500)
    second = renewed.numbered(2, 200)
    assert {path for path in first if first[path] != second[path]} == {names.RELEASE_FILE}
    assert (renewed.draft["notAfter"], release.again(first).draft["notAfter"]) == (500, None)
