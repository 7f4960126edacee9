"""`edgewright release` against a real MLflow, as a person and as a script use it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from edgewright_cli.main import app
from edgewright_contract import names
from edgewright_local.mlflow_server import MlflowServer
from edgewright_pipelines import publish, registry, release_folder, signing_keys
from edgewright_pipelines.signing_keys import Role

NOW = 1_700_000_000.0


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> signing_keys.SigningKeys:
    return signing_keys.ensure(tmp_path_factory.mktemp("commands") / "keys")


@pytest.fixture
def name() -> str:
    return f"cmd-{secrets.token_hex(4)}"


@pytest.fixture
def put(
    mlflow_server: MlflowServer, keys: signing_keys.SigningKeys, name: str, small_release: Callable[..., Any]
) -> Callable[..., publish.Published]:
    def call(alias: str | None = None) -> publish.Published:
        client = registry.connect(mlflow_server.url)
        return publish.to_mlflow(small_release(name), keys.private(Role.RELEASE), client, alias=alias, now=NOW)

    return call


@pytest.fixture
def run(
    mlflow_server: MlflowServer, keys: signing_keys.SigningKeys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Result]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("EDGEWRIGHT_KEYS", str(keys.directory))
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["release", *arguments])


def read(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout.splitlines()[-1]))


def test_list_tells_what_is_published_and_what_broke_off(
    run: Callable[..., Result], put: Callable[..., publish.Published], name: str, mlflow_server: MlflowServer
) -> None:
    first, second = put(), put("production")
    client = registry.connect(mlflow_server.url)
    client.delete_model_version_tag(name, "1", names.TAG_MANIFEST)
    found = read(run("list", name, "--json"))["releases"]
    assert found == [
        {
            "name": name,
            "version": 2,
            "sequence": second.sequence,
            "manifest": second.manifest,
            "aliases": ["production"],
            "variants": ["base-fp32", "base-int8"],
        },
        {
            "name": name,
            "version": 1,
            "sequence": first.sequence,
            "manifest": None,
            "aliases": [],
            "variants": ["base-fp32", "base-int8"],
        },
    ]
    table = run("list", name).stdout
    assert name in table
    assert "not published" in table


def test_a_registry_that_is_away_is_a_sentence_that_says_what_to_look_at(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    told = run("list")
    assert told.exit_code == 1
    assert "the registry at http://127.0.0.1:1 does not answer" in told.stderr
    assert "MLFLOW_TRACKING_URI" in told.stderr
    assert "HTTPConnectionPool" not in told.stderr


def test_show_and_verify(run: Callable[..., Result], put: Callable[..., publish.Published], name: str) -> None:
    done = put("production")
    found = read(run("show", f"{name}/production", "--json"))
    assert found["release"]["version"] == 1
    assert found["manifest"] == done.manifest
    assert [variant["name"] for variant in found["release"]["variants"]] == ["base-fp32", "base-int8"]
    shown = run("show", found["folder"]).stdout
    assert "base-int8" in shown
    assert found["signedBy"] in shown
    assert read(run("verify", found["folder"], "--json"))["manifest"] == done.manifest
    (Path(found["folder"]) / "release" / "extra.bin").write_bytes(b"1")
    refused = run("verify", found["folder"])
    assert refused.exit_code == 1
    assert "extra.bin is a file that nobody signed" in refused.stderr


def test_promote_moves_forward_and_back_only_when_told(
    run: Callable[..., Result], put: Callable[..., publish.Published], name: str, mlflow_server: MlflowServer
) -> None:
    put("production")
    put()
    moved = read(run("promote", f"{name}/2", "production", "--json"))
    assert moved == {"name": name, "alias": "production", "version": 2, "former": 1}
    back = run("promote", f"{name}/1", "production")
    assert back.exit_code == 1
    assert "say --rollback" in back.stderr
    assert read(run("promote", f"{name}/1", "production", "--rollback", "--json"))["version"] == 1
    client = registry.connect(mlflow_server.url)
    base = client.get_model_version_download_uri(name, "2").removeprefix("mlflow-artifacts:/").strip("/")
    (mlflow_server.directory / "artifacts" / base / "release" / "card.md").write_bytes(b"altered")
    altered = run("promote", f"{name}/2", "production")
    assert altered.exit_code == 1
    assert "card.md was changed after signing" in altered.stderr
    assert registry.find(client, name, "production").version == 1
    assert run("promote", "latest", "production").exit_code == 1


def test_renew_publishes_the_same_bytes_under_a_new_number(
    run: Callable[..., Result],
    put: Callable[..., publish.Published],
    name: str,
    mlflow_server: MlflowServer,
    keys: signing_keys.SigningKeys,
) -> None:
    first = put("production")
    done = read(run("renew", f"{name}/production", "--alias", "production", "--days", "30", "--json"))
    assert done["version"] == 2
    assert done["sequence"] > first.sequence
    client = registry.connect(mlflow_server.url)
    entry = registry.find(client, name, "production")
    assert entry.manifest == done["manifest"] != first.manifest
    stored, checked = registry.fetch(client, entry, release_folder.opened_trust(keys))
    assert {path: data for path, data in stored.files.items() if path != names.RELEASE_FILE} == {
        path: data for path, data in first.stored.files.items() if path != names.RELEASE_FILE
    }
    assert checked.release.not_after is not None
    assert checked.release.not_after > checked.release.sequence


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("show", "nobody/1"), "the registry has no nobody"),
        (("show", "what is this"), "is no folder; name one, or name/version"),
        (("list", "nobody"), "publish a release of it first"),
        (("verify", "."), "holds no manifest.json beside release/"),
        (("list", "--mlflow", "http://127.0.0.1:9"), "the registry at http://127.0.0.1:9"),
        (("show", "a/1", "--keys", "none"), "is no folder: run `edgewright keys new"),
    ],
)
def test_what_is_wrong_is_one_sentence(run: Callable[..., Result], arguments: tuple[str, ...], told: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert told in result.stderr
    assert "Traceback" not in result.stderr
