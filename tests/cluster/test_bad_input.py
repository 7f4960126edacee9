"""Bad releases and a gateway that is gone, with real processes: each is a condition, and what ran runs on."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from edgewright_contract import names
from edgewright_contract.conditions import Reason
from edgewright_contract.digests import digest_of
from edgewright_local import platform
from edgewright_local.control_plane import ControlPlane
from edgewright_local.mlflow_server import MlflowServer
from edgewright_local.platform import Part
from edgewright_pipelines import publish, registry, signing_keys
from edgewright_pipelines.release import UnsignedRelease
from edgewright_pipelines.signing_keys import Role

MERGE = {"Content-Type": "application/merge-patch+json"}


@dataclass
class Site:
    """One Node with its agent, operator and gateway; a release is live on it."""

    name: str
    plane: ControlPlane
    mlflow: MlflowServer
    folder: Path
    unsigned: UnsignedRelease
    gateway: Part
    agent: Part

    def publish(self, keys: str, alias: str = "production") -> publish.Published:
        key = signing_keys.load(self.folder / keys).private(Role.RELEASE)
        client = registry.connect(self.mlflow.url)
        return publish.to_mlflow(self.unsigned, key, client, alias=alias, now=time.time())

    def wish(self, name: str, registered: str, site: str, **source: Any) -> None:
        gates = {"interval": "1s", "minSamples": 1, "p95Floor": "1h", "maxRssRatio": 100}
        spec = {
            "source": {"registeredModel": registered, **(source or {"alias": "production"})},
            "nodeSelector": {"matchLabels": {"site": site}},
            "rollout": {"waves": [{"percent": 100}], "soak": "1s", "maxUnavailable": "100%", "gates": gates},
        }
        metadata = {"name": name, "namespace": self.name}
        self.plane.apply(
            [{"apiVersion": names.API_VERSION, "kind": "CompressedModel", "metadata": metadata, "spec": spec}]
        )

    def source(self, **source: Any) -> None:
        body = {"spec": {"source": {"alias": None, "version": None} | source}}
        self.plane.api.request("PATCH", f"{self._models}/nilm", json=body, headers=MERGE)

    @property
    def _models(self) -> str:
        return f"/apis/{names.API_VERSION}/namespaces/{self.name}/{names.COMPRESSED_MODELS}"

    def ready(self, name: str = "nilm") -> tuple[str, str]:
        """Reason and sentence of the Ready condition."""
        status = self.plane.api.request("GET", f"{self._models}/{name}").get("status") or {}
        found = [entry for entry in status.get("conditions") or [] if entry["type"] == "Ready"]
        return (found[0]["reason"], found[0]["message"]) if found else ("", "")

    def until(self, reason: Reason, name: str = "nilm") -> str:
        """The sentence, once the reason stands there."""
        deadline = time.monotonic() + 90
        while (told := self.ready(name))[0] != reason:
            assert time.monotonic() < deadline, (told, reason, self.folder)
            time.sleep(0.2)
        return told[1]

    def answers(self) -> int | None:
        """The version that the agent answers an inference with."""
        tensor = {"name": "watts", "shape": [1, 1, 64], "datatype": "FP32", "data": [5.0] * 64}
        url = f"{self.agent.url}/v2/models/nilm/infer"
        answer = httpx2.post(url, json={"inputs": [tensor]}, trust_env=False)
        return int(answer.json()["model_version"]) if answer.is_success else None

    def manifest_file(self, version: int) -> Path:
        """Where MLflow keeps the manifest of a version."""
        base = registry.connect(self.mlflow.url).get_model_version_download_uri(self.name, str(version))
        stored = base.removeprefix("mlflow-artifacts:/").strip("/")
        return self.mlflow.directory / "artifacts" / stored / names.MANIFEST_FILE

    def push(self) -> None:
        """Readings of the last day: what the gates' evidence is made of."""
        now = int(time.time())
        readings = [{"t": now - age, "watts": 1500.0} for age in range(24 * 64, -1, -1)]
        httpx2.post(f"{self.agent.url}/v1/readings", json={"readings": readings}, trust_env=False).raise_for_status()


@pytest.fixture(scope="module")
def site(
    control_plane: ControlPlane,
    guarded: list[str],
    mlflow_server: MlflowServer,
    run_directory: Path,
    runnable_release: Callable[[str], UnsignedRelease],
) -> Iterator[Site]:
    name = f"bad-{secrets.token_hex(3)}"
    folder = run_directory / name
    for keys in ("keys", "strangers"):
        signing_keys.ensure(folder / keys, registered_models=[name])
    control_plane.api.create_namespace(name)
    control_plane.create_node(name, {names.LABEL_AGENT: "true", "site": name})
    gateway = platform.start_gateway(control_plane, folder, mlflow_server.url, folder / "keys")
    operator = platform.start_operator(control_plane, folder, mlflow_server.url, gateway.url, folder / "keys")
    agent = platform.start_agent(control_plane, folder, name, gateway.url, folder / "keys")
    made = Site(name, control_plane, mlflow_server, folder, runnable_release(name), gateway, agent)
    made.publish("keys")
    made.wish("nilm", name, name)
    deadline = time.monotonic() + 60
    while made.answers() != 1:
        assert time.monotonic() < deadline, made.ready()
        time.sleep(0.3)
    made.push()
    made.until(Reason.ROLLED_OUT)
    yield made
    for part in (agent, operator, gateway):
        part.process.stop()
    control_plane.api.request("DELETE", f"/api/v1/nodes/{name}")


@pytest.fixture
def still(site: Site) -> Iterator[None]:
    """What ran before a test runs after it, and once its cause is gone the rollout stands as before."""
    yield
    assert site.answers() == 1
    site.source(alias="production")
    site.until(Reason.ROLLED_OUT)
    assert site.answers() == 1


def test_an_unknown_registered_model(site: Site, still: None) -> None:
    site.wish("other", f"{site.name}-unknown", site.name)
    assert f"{site.name}-unknown" in site.until(Reason.MODEL_NOT_FOUND, "other")


def test_an_alias_without_a_version(site: Site, still: None) -> None:
    site.source(alias="nobody")
    assert "nobody" in site.until(Reason.ALIAS_NOT_FOUND)


def test_a_release_that_a_stranger_signed(site: Site, still: None) -> None:
    done = site.publish("strangers", "strange")
    site.source(version=done.version)
    assert "no trusted key" in site.until(Reason.RELEASE_REFUSED)


def test_a_release_whose_files_were_altered(site: Site, still: None) -> None:
    done = site.publish("keys", "altered")
    file = site.manifest_file(done.version)
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    site.source(version=done.version)
    assert site.until(Reason.RELEASE_CHANGED)


def test_a_release_that_nobody_signed(site: Site, still: None) -> None:
    """Published by the book except for the signature: the tag names the digest of the file that is there."""
    done = site.publish("keys", "unsigned")
    file = site.manifest_file(done.version)
    envelope = json.loads(file.read_bytes())
    envelope["dsseEnvelope"]["signatures"] = []
    file.write_text(json.dumps(envelope))
    tag = digest_of(file.read_bytes())
    registry.connect(site.mlflow.url).set_model_version_tag(site.name, str(done.version), names.TAG_MANIFEST, tag)
    site.source(version=done.version)
    assert "signature" in site.until(Reason.RELEASE_REFUSED)


def test_a_version_that_was_never_published_wholly(site: Site, still: None) -> None:
    done = site.publish("keys", "half")
    registry.connect(site.mlflow.url).delete_model_version_tag(site.name, str(done.version), names.TAG_MANIFEST)
    site.source(version=done.version)
    assert names.TAG_MANIFEST in site.until(Reason.NOT_PUBLISHED)


def test_a_node_without_the_label_is_no_edge_node_and_the_sentence_names_the_label(site: Site, still: None) -> None:
    node = f"{site.name}-plain"
    site.plane.create_node(node, {"site": node})
    site.wish("plain", site.name, node)
    assert names.LABEL_AGENT in site.until(Reason.NO_NODES, "plain")
    edge_nodes = site.plane.api.request("GET", f"/apis/{names.API_VERSION}/{names.EDGE_NODES}")["items"]
    assert node not in [item["metadata"]["name"] for item in edge_nodes]


def test_a_gateway_that_is_gone(site: Site) -> None:
    """The last one, as nothing moves from here on."""
    done = site.publish("keys", "next")
    site.gateway.process.stop()
    site.source(version=done.version)
    assert f"the model gateway at {site.gateway.url} cannot be asked" in site.until(Reason.GATEWAY_UNAVAILABLE)
    assert site.answers() == 1
