"""The real gateway process between the real MLflow and the real API server, asked as operator and agents ask it."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from edgewright_contract import names
from edgewright_contract.compressedmodel import Source
from edgewright_contract.conditions import Reason
from edgewright_contract.digests import digest_of
from edgewright_local import platform
from edgewright_local.control_plane import ControlPlane
from edgewright_local.mlflow_server import MlflowServer
from edgewright_local.platform import Part
from edgewright_operator.facts import ReleaseFacts, SourceProblem
from edgewright_operator.mlflow import MlflowRegistry
from edgewright_operator.source import Gateway, resolve
from edgewright_pipelines import publish, registry, signing_keys
from edgewright_pipelines.signing_keys import Role

NOW = 1_700_000_000.0


@dataclass
class Site:
    plane: ControlPlane
    mlflow: MlflowServer
    gateway: Part
    folder: Path
    small_release: Callable[..., Any]

    @property
    def client(self) -> registry.MlflowClient:
        return registry.connect(self.mlflow.url)

    def publish(self, name: str, alias: str | None = "production", **named: Any) -> publish.Published:
        key = signing_keys.load(self.folder / "keys").private(Role.RELEASE)
        unsigned = self.small_release(name, **named)
        return publish.to_mlflow(unsigned, key, self.client, alias=alias, now=NOW)

    def token(self, account: str, node: str | None = None, audience: str | None = names.GATEWAY_AUDIENCE) -> str:
        return self.plane.service_account_token(names.NAMESPACE, account, audience, node)

    def agent(self, models: list[dict[str, Any]]) -> tuple[str, dict[str, str]]:
        """A Node whose EdgeNode names `models`, and its agent's headers."""
        node = f"gate-{secrets.token_hex(4)}"
        self.plane.create_node(node)
        document = {"apiVersion": names.API_VERSION, "kind": "EdgeNode", "metadata": {"name": node}}
        self.plane.apply([{**document, "spec": {"models": models}}])
        return node, {"Authorization": f"Bearer {self.token('agent', node)}"}

    async def resolve(self, name: str, **source: Any) -> ReleaseFacts | SourceProblem:
        """As the operator does."""
        file = self.folder / "operator-token"
        file.write_text(self.token("operator"))
        async with httpx2.AsyncClient(trust_env=False) as client:
            gateway = Gateway(self.gateway.url, file, client)
            wished = Source.model_validate({"registeredModel": name, **(source or {"alias": "production"})})
            found, _ = await resolve(wished, MlflowRegistry(self.mlflow.url, client), gateway)
            return found

    def get(self, digest: str, headers: dict[str, str]) -> httpx2.Response:
        path = f"{self.gateway.url}/blobs/sha256/{digest.removeprefix('sha256:')}"
        return httpx2.get(path, headers=headers, trust_env=False)


@pytest.fixture(scope="module")
def site(
    control_plane: ControlPlane,
    guarded: list[str],
    mlflow_server: MlflowServer,
    run_directory: Path,
    small_release: Callable[..., Any],
) -> Iterator[Site]:
    folder = run_directory / "gateway-site"
    signing_keys.ensure(folder / "keys", registered_models=["gate-*"])
    gateway = platform.start_gateway(control_plane, folder, mlflow_server.url, folder / "keys")
    made = Site(control_plane, mlflow_server, gateway, folder, small_release)
    yield made
    made.gateway.process.stop()


@pytest.fixture
def name() -> str:
    return f"gate-{secrets.token_hex(4)}"


def live(name: str, done: publish.Published, variant: str = "base-int8") -> dict[str, Any]:
    wish = {"version": done.version, "sequence": done.sequence, "manifest": done.manifest, "variant": variant}
    return {"name": f"default/{name}", "registeredModel": name, "live": wish}


def digest(done: publish.Published, path: str) -> str:
    return digest_of(done.stored.files[path])


async def test_a_published_release_reaches_the_node_that_its_object_names(site: Site, name: str) -> None:
    done = site.publish(name)
    found = await site.resolve(name)
    assert isinstance(found, ReleaseFacts)
    assert (found.release.version, found.manifest) == (1, done.manifest)
    _, headers = site.agent([live(name, done)])
    answer = site.get(digest(done, "variants/base-int8.onnx"), headers)
    assert answer.content == done.stored.files["variants/base-int8.onnx"]
    part = site.get(digest(done, "variants/base-int8.onnx"), {**headers, "Range": "bytes=490-"})
    assert (part.status_code, part.content) == (206, answer.content[490:])
    assert site.get(digest(done, "variants/base-int8.onnx"), {**headers, "Range": "bytes=500-"}).status_code == 416
    assert site.get(digest(done, "variants/base-fp32.onnx"), headers).status_code == 403
    assert site.get(done.manifest, headers).content == done.stored.manifest


async def test_tokens_are_judged_by_the_real_api_server(site: Site, name: str, namespace: str) -> None:
    done = site.publish(name)
    node, good = site.agent([live(name, done)])
    other, _ = site.agent([])
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "agent"}}
    site.plane.apply([account], namespace=namespace)
    elsewhere = site.plane.service_account_token(namespace, "agent", names.GATEWAY_AUDIENCE, node)
    assert site.get(done.manifest, good).status_code == 200
    for token, status in (
        ("nonsense", 401),
        (site.token("agent", node, audience=None), 401),  # for the API server, not for us
        (site.token("agent"), 403),
        (site.token("agent", other), 403),
        (site.token("operator"), 403),
        (elsewhere, 403),
    ):
        answer = site.get(done.manifest, {"Authorization": f"Bearer {token}"})
        assert (answer.status_code, set(answer.json())) == (status, {"reason", "message"})
    question = {"registeredModel": name, "version": 1, "manifest": done.manifest}
    answer = httpx2.post(f"{site.gateway.url}/releases", json=question, headers=good, trust_env=False)
    assert answer.status_code == 403


async def test_what_the_operator_asks_wrongly_has_its_status(site: Site, name: str) -> None:
    done = site.publish(name)
    headers = {"Authorization": f"Bearer {site.token('operator')}"}
    question = {"registeredModel": name, "version": 1, "manifest": done.manifest}
    for changed, status, reason in (
        ({}, 200, None),
        ({"registeredModel": f"{name}x", "manifest": "sha256:" + "0" * 64}, 404, "ModelNotFound"),
        ({"version": 9, "manifest": "sha256:" + "0" * 64}, 404, "VersionNotFound"),
        ({"manifest": "sha256:" + "0" * 64}, 409, "ReleaseChanged"),
        ({"version": 9}, 422, "ReleaseRefused"),
        ({"manifest": "x"}, 422, "BadRequest"),
    ):
        answer = httpx2.post(
            f"{site.gateway.url}/releases", json={**question, **changed}, headers=headers, trust_env=False
        )
        assert (answer.status_code, answer.json().get("reason")) == (status, reason)
    _, agent = site.agent([])
    path = f"{site.gateway.url}/blobs/sha256/nothing"
    assert httpx2.get(path, headers=agent, trust_env=False).json()["reason"] == "NotFound"


async def test_a_deleted_node_gets_nothing_within_ten_seconds(site: Site, name: str) -> None:
    done = site.publish(name)
    node, headers = site.agent([live(name, done)])
    assert site.get(done.manifest, headers).status_code == 200
    site.plane.api.request("DELETE", f"/api/v1/nodes/{node}")
    started = time.monotonic()
    while site.get(done.manifest, headers).status_code == 200:
        assert time.monotonic() - started < 25  # ours and the API server's own cache
        await asyncio.sleep(0.5)
    assert site.get(done.manifest, headers).status_code == 401


async def test_killed_and_started_again_it_serves_at_once(site: Site, name: str) -> None:
    done = site.publish(name)
    assert isinstance(await site.resolve(name), ReleaseFacts)
    _, headers = site.agent([live(name, done)])
    os.kill(site.gateway.process.pid, signal.SIGKILL)
    site.gateway.process.stop()
    site.gateway = platform.start_gateway(site.plane, site.folder, "http://127.0.0.1:9", site.folder / "keys")
    assert site.get(digest(done, "variants/base-int8.onnx"), headers).status_code == 200  # MLflow is away
    site.gateway.process.stop()
    site.gateway = platform.start_gateway(site.plane, site.folder, site.mlflow.url, site.folder / "keys")


async def test_what_mlflow_lacks_is_a_reason(site: Site, name: str) -> None:
    async def reason(**source: Any) -> tuple[Reason, str]:
        found = await site.resolve(name, **source)
        assert isinstance(found, SourceProblem)
        return found.reason, found.message

    assert (await reason())[0] is Reason.MODEL_NOT_FOUND
    assert (await reason(version=1))[0] is Reason.MODEL_NOT_FOUND
    site.publish(name, alias=None)
    assert (await reason())[0] is Reason.ALIAS_NOT_FOUND
    assert (await reason(version=2))[0] is Reason.VERSION_NOT_FOUND
    site.client.delete_model_version_tag(name, "1", names.TAG_MANIFEST)
    told = await reason(version=1)
    assert told[0] is Reason.NOT_PUBLISHED
    assert names.TAG_MANIFEST in told[1]


async def test_a_registry_that_is_away_moves_nothing(site: Site, name: str) -> None:
    away = replace(site, mlflow=MlflowServer(site.folder, "http://127.0.0.1:9", site.mlflow.process))
    found = await away.resolve(name)
    assert isinstance(found, SourceProblem)
    assert found.reason is Reason.SOURCE_UNAVAILABLE
    assert "http://127.0.0.1:9" in found.message


@pytest.mark.parametrize(
    ("path", "reason"),
    [(names.MANIFEST_FILE, Reason.RELEASE_CHANGED), ("release/variants/base-int8.onnx", Reason.RELEASE_REFUSED)],
)
async def test_an_artifact_that_was_overwritten_is_refused(site: Site, name: str, path: str, reason: Reason) -> None:
    site.publish(name, files={"variants/base-int8.onnx": name.encode()})  # bytes that no other release brought
    base = site.client.get_model_version_download_uri(name, "1").removeprefix("mlflow-artifacts:/").strip("/")
    file = site.mlflow.directory / "artifacts" / base / path
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    found = await site.resolve(name)
    assert isinstance(found, SourceProblem)
    assert found.reason is reason


async def test_a_key_that_may_not_sign_this_model_is_refused(site: Site) -> None:
    other = f"other-{secrets.token_hex(4)}"
    site.publish(other)
    found = await site.resolve(other)
    assert isinstance(found, SourceProblem)
    assert (found.reason, "no trusted key" in found.message) == (Reason.RELEASE_REFUSED, True)


async def test_a_model_that_was_deleted_and_made_again_brings_its_own_files(site: Site, name: str) -> None:
    """MLflow begins again at version 1: the same number, another manifest."""
    first = site.publish(name)
    assert isinstance(await site.resolve(name), ReleaseFacts)
    site.client.delete_registered_model(name)
    found = await site.resolve(name)
    assert isinstance(found, SourceProblem)
    assert found.reason is Reason.MODEL_NOT_FOUND
    second = site.publish(name, files={"variants/base-int8.onnx": b"made again"})
    assert (second.version, second.manifest != first.manifest) == (1, True)
    again = await site.resolve(name)
    assert isinstance(again, ReleaseFacts)
    assert again.manifest == second.manifest
    _, headers = site.agent([live(name, second)])
    assert site.get(digest(second, "variants/base-int8.onnx"), headers).content == b"made again"
    _, headers = site.agent([live(name, first)])  # a node that still has the old wish gets the old bytes
    assert site.get(digest(first, "variants/base-int8.onnx"), headers).status_code == 200


async def test_a_moved_alias_is_followed(site: Site, name: str) -> None:
    site.publish(name)
    second = site.publish(name)
    assert second.version == 2
    found = await site.resolve(name)
    assert isinstance(found, ReleaseFacts)
    assert found.manifest == second.manifest
    entry = registry.find(site.client, name, "1")
    registry.move_alias(site.client, entry, "production", rollback=True)
    found = await site.resolve(name)
    assert isinstance(found, ReleaseFacts)
    assert found.release.version == 1
