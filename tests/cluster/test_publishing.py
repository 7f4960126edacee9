"""Publishing into a real MLflow, broken off at each step; and reading back what stands there."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from edgewright_contract import names
from edgewright_contract.digests import digest_of
from edgewright_local.mlflow_server import MlflowServer
from edgewright_pipelines import publish, registry, release_folder, resolve, signing_keys, tracking
from edgewright_pipelines.release import UnsignedRelease
from edgewright_pipelines.signing_keys import Role, SigningKeys

NOW = 1_700_000_000.0
Make = Callable[..., UnsignedRelease]


@pytest.fixture(scope="module")
def client(mlflow_server: MlflowServer) -> MlflowClient:
    return registry.connect(mlflow_server.url)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> SigningKeys:
    return signing_keys.ensure(tmp_path_factory.mktemp("keys") / "keys")


@pytest.fixture
def unsigned(small_release: Make) -> UnsignedRelease:
    return small_release(f"nilm-{secrets.token_hex(4)}")


@pytest.fixture
def put(keys: SigningKeys, client: MlflowClient, unsigned: UnsignedRelease) -> Callable[..., publish.Published]:
    def call(alias: str | None = None, client: Any = client, now: float = NOW) -> publish.Published:
        experiment = unsigned.registered_model
        return publish.to_mlflow(
            unsigned, keys.private(Role.RELEASE), client, alias=alias, now=now, experiment=experiment
        )

    return call


class Breaking:
    """The client until the `nth` call of one method, which fails."""

    def __init__(self, client: MlflowClient, method: str, failure: BaseException, nth: int = 1) -> None:
        self._client, self._method, self._failure, self._left = client, method, failure, nth

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name != self._method:
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                raise self._failure
            return found(*arguments, **named)

        return call


def _runs(client: MlflowClient, experiment: str) -> list[str]:
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return [run.info.status for run in client.search_runs([found.experiment_id])]


STEPS = [
    ("create_logged_model", 1),
    ("create_model_version", 1),
    ("set_model_version_tag", 1),
    ("log_model_artifacts", 1),
    ("finalize_logged_model", 1),
    ("get_model_version_download_uri", 1),
    ("set_model_version_tag", 3),
]


@pytest.mark.parametrize(
    ("method", "nth", "failure"),
    [
        *((*step, KeyboardInterrupt()) for step in STEPS),
        *((*step, MlflowException("broken off")) for step in (STEPS[3], STEPS[6])),
    ],
)
def test_broken_off_at_any_step_nothing_is_published_and_the_next_try_succeeds(
    put: Callable[..., publish.Published],
    client: MlflowClient,
    unsigned: UnsignedRelease,
    method: str,
    nth: int,
    failure: BaseException,
) -> None:
    name = unsigned.registered_model
    first = put("production")
    expected = KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else publish.PublishError
    with pytest.raises(expected):
        put("production", Breaking(client, method, failure, nth))
    found = registry.entries(client, name)
    assert [entry.manifest for entry in found if entry.manifest] == [first.manifest]
    assert registry.find(client, name, "production").version == first.version
    assert sorted(_runs(client, name)) == ["FAILED", "FINISHED"]
    second = put("production")
    assert second.sequence > first.sequence
    assert registry.find(client, name, "production").version == second.version


def test_an_alias_that_does_not_move_is_told_apart_from_a_release_that_is_not_there(
    put: Callable[..., publish.Published], client: MlflowClient, unsigned: UnsignedRelease
) -> None:
    broken = Breaking(client, "set_registered_model_alias", MlflowException("no right"))
    with pytest.raises(publish.PublishError, match=r"version 1 is published, but production did not move.*no right"):
        put("production", broken)
    (entry,) = registry.entries(client, unsigned.registered_model)
    assert entry.manifest is not None
    assert entry.aliases == ()


def test_bytes_that_change_on_the_way_leave_the_version_without_its_tag(
    put: Callable[..., publish.Published],
    client: MlflowClient,
    unsigned: UnsignedRelease,
    mlflow_server: MlflowServer,
) -> None:
    class Spoiling(Breaking):
        def finalize_logged_model(self, *arguments: Any) -> None:
            file = next((mlflow_server.directory / "artifacts").rglob(f"{arguments[0]}/**/base-int8.onnx"))
            file.write_bytes(file.read_bytes()[:-1] + b"!")
            client.finalize_logged_model(*arguments)

    with pytest.raises(publish.PublishError, match=r"other bytes for release/variants/base-int8\.onnx"):
        put("production", Spoiling(client, "-", ValueError()))
    (entry,) = registry.entries(client, unsigned.registered_model)
    assert (entry.manifest, entry.aliases) == (None, ())
    with pytest.raises(registry.RegistryError, match="publishing did not end"):
        registry.find(client, unsigned.registered_model, "1")


def test_the_sequence_grows_even_when_the_clock_goes_back_or_two_publish_at_once(
    put: Callable[..., publish.Published], client: MlflowClient, unsigned: UnsignedRelease
) -> None:
    first = put()
    second = put(now=NOW - 3_600)
    assert second.sequence == first.sequence + 1
    name = unsigned.registered_model

    class Racing(Breaking):
        raced = False

        def set_model_version_tag(self, *arguments: str) -> None:
            client.set_model_version_tag(*arguments)
            if not self.raced:  # another publisher takes the same number in the same moment
                self.raced = True
                model = client.create_logged_model(client.create_experiment(secrets.token_hex(8)), name=name)
                other = client.create_model_version(name, model.model_uri, model_id=model.model_id)
                client.set_model_version_tag(name, other.version, names.TAG_SEQUENCE, arguments[3])

    third = put(client=Racing(client, "-", ValueError()))
    sequences = [entry.sequence for entry in registry.entries(client, name)]
    assert len(set(sequences)) == len(sequences) == 4
    assert third.sequence == max(sequence or 0 for sequence in sequences)


def test_a_release_is_found_verified_and_kept_as_a_folder(
    put: Callable[..., publish.Published],
    client: MlflowClient,
    unsigned: UnsignedRelease,
    keys: SigningKeys,
    mlflow_server: MlflowServer,
    tmp_path: Path,
) -> None:
    name = unsigned.registered_model
    newest = time.time() + 40_000  # of all in this registry, which other tests publish to as well
    put(now=newest)
    second = put("production", now=newest + 5)
    where = {"mlflow": mlflow_server.url, "keys": keys.directory, "workspace": tmp_path}
    folder = resolve.resolve_release(f"{name}/2", **where)
    assert digest_of((folder / names.MANIFEST_FILE).read_bytes()) == second.manifest
    assert folder == tmp_path / "releases" / name / "2"
    for text in (f"{name}/production", f"{name}/latest", "latest", str(folder)):
        assert resolve.resolve_release(text, **where) == folder
    assert resolve.resolve_release("latest", workspace=tmp_path) == folder
    checked = release_folder.verified(release_folder.read(folder), release_folder.opened_trust(keys))
    assert (checked.release.registered_model, checked.release.version) == (name, 2)
    (folder / "release" / "card.md").write_text("mine")
    with pytest.raises(release_folder.FolderError, match=r"card\.md was changed after signing"):
        resolve.resolve_release(f"{name}/2", **where)
    with pytest.raises(registry.RegistryError, match="has no version or alias 9; its versions are 2, 1"):
        resolve.resolve_release(f"{name}/9", **where)
    with pytest.raises(registry.RegistryError, match="the registry has no nobody: publish a release of it first"):
        resolve.resolve_release("nobody/1", **where)


@pytest.mark.parametrize("what", ["manifest", "file"])
def test_an_artifact_that_changed_in_the_registry_is_refused(
    put: Callable[..., publish.Published],
    client: MlflowClient,
    unsigned: UnsignedRelease,
    keys: SigningKeys,
    mlflow_server: MlflowServer,
    what: str,
) -> None:
    name = unsigned.registered_model
    put()
    base = client.get_model_version_download_uri(name, "1").removeprefix("mlflow-artifacts:/").strip("/")
    root = mlflow_server.directory / "artifacts" / base
    file = root / (names.MANIFEST_FILE if what == "manifest" else "release/card.md")
    file.write_bytes(file.read_bytes() + b" ")
    expected = "its manifest is not the one of its tag" if what == "manifest" else r"card\.md was changed after signing"
    with pytest.raises(registry.RegistryError, match=expected):
        registry.fetch(client, registry.find(client, name, "1"), release_folder.opened_trust(keys))


def test_an_alias_goes_back_only_when_that_is_said(
    put: Callable[..., publish.Published], client: MlflowClient, unsigned: UnsignedRelease
) -> None:
    name = unsigned.registered_model
    put()
    put("production")
    first = registry.find(client, name, "1")
    with pytest.raises(registry.RegistryError, match="nodes would go back; say --rollback"):
        registry.move_alias(client, first, "production", rollback=False)
    assert registry.find(client, name, "production").version == 2
    before = registry.move_alias(client, first, "production", rollback=True)
    assert before is not None
    assert before.version == 2
    assert registry.find(client, name, "production").version == 1


def test_a_registry_that_is_away_is_a_sentence(
    unsigned: UnsignedRelease, keys: SigningKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = registry.connect("http://127.0.0.1:9")
    with pytest.raises(registry.RegistryError, match=r"the registry at http://127\.0\.0\.1:9 does not answer"):
        registry.entries(away)
    with pytest.raises(publish.PublishError, match="was not published"):
        publish.to_mlflow(unsigned, keys.private(Role.RELEASE), away, alias=None, now=NOW)


def test_a_run_whose_logging_fails_does_not_stay_running(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(tracking, "_log", broken)
    result: Any = SimpleNamespace(recipe=SimpleNamespace(name=secrets.token_hex(8)))
    with pytest.raises(OSError, match="no space left"):
        tracking.log(client, result)
    experiment = client.get_experiment_by_name(publish.EXPERIMENT)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{result.recipe.name}'")
    assert [run.info.status for run in found] == ["FAILED"]


def test_a_sequence_tag_in_the_far_future_is_told_instead_of_followed(
    put: Callable[..., publish.Published], client: MlflowClient, unsigned: UnsignedRelease
) -> None:
    """Anybody who may tag could otherwise bar every later release: nodes take only greater sequences."""
    put()
    client.set_model_version_tag(unsigned.registered_model, "1", names.TAG_SEQUENCE, str(2**52))
    with pytest.raises(publish.PublishError, match=r"version 1 has the tag edgewright\.sequence 4503599627370496"):
        put("production")
    assert registry.entries(client, unsigned.registered_model)[0].manifest is None
