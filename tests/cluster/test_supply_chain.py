"""Publisher, MLflow, gateway and agent, all real: a key rotates, is revoked, and a release is renewed.

The test plays the operator: it asks the gateway and writes the EdgeNode.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgewright_contract import keys, names
from edgewright_local import platform
from edgewright_local.control_plane import ControlPlane
from edgewright_local.mlflow_server import MlflowServer
from edgewright_pipelines import publish, registry, release, signing_keys, trust_file
from edgewright_pipelines.signing_keys import Role

SECONDS = 90


@dataclass
class Chain:
    plane: ControlPlane
    folder: Path
    name: str
    node: str
    gateway: str
    client: registry.MlflowClient
    log: Path

    @property
    def keys(self) -> signing_keys.SigningKeys:
        return signing_keys.load(self.folder / "keys")

    def publish(self, unsigned: release.UnsignedRelease, key: ec.EllipticCurvePrivateKey) -> publish.Published:
        return publish.to_mlflow(unsigned, key, self.client, alias=None, now=time.time())

    def ask(self, done: publish.Published) -> httpx2.Response:
        token = self.plane.service_account_token(names.NAMESPACE, "operator", names.GATEWAY_AUDIENCE)
        question = {"registeredModel": self.name, "version": done.version, "manifest": done.manifest}
        headers = {"Authorization": f"Bearer {token}"}
        return httpx2.post(f"{self.gateway}/releases", json=question, headers=headers, trust_env=False, timeout=30)

    def assign(self, done: publish.Published, trust: str) -> None:
        live = {
            "version": done.version,
            "sequence": done.sequence,
            "manifest": done.manifest,
            "variant": "base-fp32",
        }
        spec = {
            "trust": trust,
            "models": [{"name": "default/chain", "registeredModel": self.name, "live": live}],
        }
        document = {"apiVersion": names.API_VERSION, "kind": "EdgeNode", "metadata": {"name": self.node}}
        self.plane.apply([{**document, "spec": spec}])

    def roll_out(self, done: publish.Published) -> str:
        """Through the gateway to the node, until it is live there; the digest of trust.json."""
        answer = self.ask(done)
        assert answer.status_code == 200, answer.text
        trust = str(answer.json()["trust"])
        self.assign(done, trust)
        self.until(lambda model: model.get("state") == "Live" and model["live"]["manifest"] == done.manifest)
        return trust

    def status(self) -> dict[str, Any]:
        path = f"/apis/{names.API_VERSION}/{names.EDGE_NODES}/{self.node}"
        return dict(self.plane.api.request("GET", path).get("status") or {})

    def model(self) -> dict[str, Any]:
        return dict(next(iter(self.status().get("models") or []), {}))

    def until(self, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + SECONDS
        while not reached(model := self.model()):
            if time.monotonic() > deadline:
                pytest.fail(f"not within {SECONDS} s: {model}\n{self.log.read_text()[-3000:]}")
            time.sleep(0.3)
        return model

    def sent(self) -> float:
        """Bytes that the gateway sent so far."""
        text = httpx2.get(f"{self.gateway}/metrics", trust_env=False).text
        line = next(line for line in text.splitlines() if line.startswith("edgewright_gateway_sent_bytes_total "))
        return float(line.split()[1])


@pytest.fixture
def chain(
    control_plane: ControlPlane, guarded: list[str], mlflow_server: MlflowServer, run_directory: Path
) -> Iterator[Chain]:
    suffix = secrets.token_hex(3)
    folder, node = run_directory / f"chain-{suffix}", f"chain-{suffix}"
    signing_keys.ensure(folder / "keys", registered_models=["chain-*"])
    control_plane.create_node(node)
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": node}}
    control_plane.apply([lease], namespace=names.NAMESPACE)
    gateway = platform.start_gateway(control_plane, folder, mlflow_server.url, folder / "keys")
    agent = platform.start_agent(control_plane, folder, node, gateway.url, folder / "keys")
    client = registry.connect(mlflow_server.url)
    yield Chain(control_plane, folder, f"chain-{suffix}", node, gateway.url, client, agent.process.spec.log)
    agent.process.stop()
    gateway.process.stop()


def test_keys_rotate_and_are_revoked_under_a_node_that_keeps_serving(
    chain: Chain, runnable_release: Callable[[str], release.UnsignedRelease]
) -> None:
    unsigned = runnable_release(chain.name)
    old = chain.keys.private(Role.RELEASE)
    first_trust = chain.roll_out(chain.publish(unsigned, old))

    trust_file.rotate(chain.keys, Role.RELEASE)
    new = chain.keys.private(Role.RELEASE)
    second = chain.publish(unsigned, new)
    second_trust = chain.roll_out(second)
    assert second_trust != first_trust
    chain.roll_out(chain.publish(unsigned, old))  # both are trusted

    trust_file.revoke(chain.keys, keys.key_id(old.public_key()))
    fourth = chain.publish(unsigned, new)
    third_trust = chain.roll_out(fourth)
    stolen = chain.publish(unsigned, old)
    refused = chain.ask(stolen)
    assert (refused.status_code, refused.json()["reason"]) == (422, "ReleaseRefused")
    assert "no trusted key" in refused.json()["message"]

    chain.assign(stolen, third_trust)  # an operator that was taken over
    model = chain.until(lambda model: bool(model.get("reason")) and model.get("state") != "Live")
    assert model["live"]["manifest"] == fourth.manifest
    chain.assign(fourth, third_trust)
    chain.until(lambda model: model.get("state") == "Live" and model["live"]["manifest"] == fourth.manifest)

    before = chain.sent()
    renewed = chain.publish(release.again(fourth.stored.files, not_after=int(time.time()) + 86_400), new)
    chain.roll_out(renewed)
    small = len(renewed.stored.manifest) + len(renewed.stored.files[names.RELEASE_FILE])
    answered = 8_192  # what the gateway told the operator and the metrics page
    assert chain.sent() - before < small + 2 * answered
    trusted = {entry["type"]: entry["status"] for entry in chain.status()["conditions"]}
    assert trusted["TrustOk"] == "True"
