"""What the gateway may answer, and the order of writes around a kill."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client import REGISTRY

from edgewright_contract import names
from edgewright_contract.conditions import Reason
from edgewright_operator.facts import ReleaseFacts, SourceProblem
from edgewright_operator.mlflow import ModelVersion
from edgewright_operator.reconcile import Reconciler
from edgewright_operator.settings import Settings
from edgewright_operator.source import Gateway

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def digest(version: int) -> str:
    return f"sha256:{version:064x}"


def release(version: int) -> dict[str, Any]:
    return {
        "registeredModel": "nilm",
        "version": version,
        "sequence": version,
        "labels": ["a", "b"],
        "window": {"seconds": 64, "hopSeconds": 16},
        "variants": [
            {
                "name": "f",
                "file": "variants/f.onnx",
                "digest": digest(9),
                "bytes": 1,
                "precision": "fp32",
                "parameters": 1,
                "macs": 1,
                "accuracy": None,
                "latency": {"p50Microseconds": 1, "p95Microseconds": 1, "machine": "m", "runtimeVersion": "1"},
                "golden": {"answers": [[0.5, 0.5]], "tolerance": 0.001},
            }
        ],
        "golden": {"digest": digest(9), "count": 1},
        "provenance": {
            "recipeDigest": digest(9),
            "dataDigest": digest(9),
            "synthetic": True,
            "created": "2026-01-01T00:00:00Z",
        },
    }


@pytest.fixture
def token(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("secret\n")
    return tmp_path / "token"


GOOD = {"manifest": digest(1), "release": release(1), "trust": digest(8)}


@pytest.mark.parametrize(
    ("code", "body", "reason"),
    [
        (200, GOOD, None),
        (200, [], Reason.GATEWAY_UNAVAILABLE),
        (200, {}, Reason.GATEWAY_UNAVAILABLE),
        (200, GOOD | {"release": {}}, Reason.GATEWAY_UNAVAILABLE),
        (200, GOOD | {"release": release(2)}, Reason.GATEWAY_UNAVAILABLE),
        (200, GOOD | {"manifest": digest(2)}, Reason.GATEWAY_UNAVAILABLE),
        (200, GOOD | {"trust": "no digest"}, Reason.GATEWAY_UNAVAILABLE),
        (409, {"message": "other bytes"}, Reason.RELEASE_CHANGED),
        (422, {"reason": "BadSignature", "message": "no"}, Reason.RELEASE_REFUSED),
        (500, {}, Reason.GATEWAY_UNAVAILABLE),
    ],
)
async def test_only_the_release_that_was_asked_for_is_one(
    token: Path, code: int, body: Any, reason: Reason | None
) -> None:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(code, json=body))
    async with httpx2.AsyncClient(transport=transport) as client:
        found, trust = await Gateway("http://gateway", token, client).release("nilm", 1, digest(1))
    if reason is None:
        assert isinstance(found, ReleaseFacts)
        assert trust == digest(8)
    else:
        assert isinstance(found, SourceProblem)
        assert found.reason is reason
        assert trust is None


async def test_a_token_file_that_is_gone_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=GOOD))
    async with httpx2.AsyncClient(transport=transport) as client:
        found, _ = await Gateway("http://gateway", tmp_path / "none", client).release("nilm", 1, digest(1))
    assert isinstance(found, SourceProblem)
    assert "none" in found.message


class Killed(BaseException):
    """The process ends here."""


class Server:
    """The API server's objects; ends the process after `writes` of EdgeNode.spec or status."""

    def __init__(self) -> None:
        self.model: dict[str, Any] = {
            "metadata": {"namespace": "n", "name": "x", "uid": "u", "generation": 1},
            "spec": {
                "source": {"registeredModel": "nilm", "alias": "production"},
                "rollout": {"waves": [{"percent": 100}], "soak": "0s", "maxUnavailable": "100%"},
            },
        }
        owner = [{"uid": "1"}]
        self.node: dict[str, Any] = {"metadata": {"name": "one", "ownerReferences": owner}, "spec": {}}
        self.heartbeats = ["one"]
        self.created: list[str] = []
        self.exposures: list[int] = []
        self.writes = 1_000

    def _write(self) -> None:
        if self.writes == 0:
            raise Killed
        self.writes -= 1

    async def compressed_models(self) -> list[Any]:
        return [self.model]

    async def edge_nodes(self) -> list[Any]:
        return [dict(self.node)]

    async def nodes(self) -> list[Any]:
        return [{"metadata": {"name": "one", "uid": "1"}}]

    async def leases(self) -> list[Any]:
        return [{"metadata": {"name": name}, "spec": {"renewTime": NOW.isoformat()}} for name in self.heartbeats]

    async def namespace(self, _: str) -> Any:
        return {"metadata": {}}

    async def create_heartbeat(self, node: Any) -> None:
        self.created.append(node["metadata"]["name"])

    async def write_spec(self, _: Any, spec: Any) -> Any:
        self._write()
        self.node = self.node | {"spec": spec}
        self.exposures.append(self.version())
        return self.node

    async def write_status(self, _: Any, status: Any) -> None:
        self._write()
        self.model = self.model | {"status": status}

    async def create_event(self, *_: Any, **__: Any) -> None:
        pass

    def agent(self, state: str) -> None:
        wanted = self.node["spec"]["models"][0]["live"]
        served = {key: wanted[key] for key in ("version", "manifest", "variant")}
        before = (self.node.get("status") or {"models": [{}]})["models"][0].get("live")
        entry = {"name": "n/x", "state": state, "target": wanted["manifest"], "reason": "SelfTestFailed"}
        live = served if state == "Live" else before
        self.node = self.node | {"status": {"models": [entry | ({"live": live} if live else {})]}}

    def version(self) -> int:
        return int(self.node["spec"]["models"][0]["live"]["version"])


class Registry:
    def __init__(self) -> None:
        self.number, self.asked = 1, 0

    async def alias(self, *_: str) -> ModelVersion:
        self.asked += 1
        return ModelVersion(self.number, {names.TAG_MANIFEST: digest(self.number)})

    async def version(self, _: str, number: int) -> ModelVersion:
        return ModelVersion(number, {names.TAG_MANIFEST: digest(number)})


def answers(request: httpx2.Request) -> httpx2.Response:
    import json

    version = json.loads(request.content)["version"]
    return httpx2.Response(200, json={"manifest": digest(version), "release": release(version), "trust": digest(8)})


@pytest.fixture
def process(token: Path) -> Any:
    """A fresh operator process in front of the same server and registry."""

    def begun(server: Server, registry: Registry) -> Reconciler:
        settings = Settings(mlflow_url="-", gateway_url="http://g", gateway_token_file=token, single_tenant=True)
        client = httpx2.AsyncClient(transport=httpx2.MockTransport(answers))
        return Reconciler(server, registry, Gateway("http://g", token, client), settings)  # type: ignore[arg-type]

    return begun


async def _settled(operator: Reconciler, server: Server, at: float, state: str = "Live") -> None:
    for step in range(4):
        await operator.round(NOW, at + step)
        server.agent(state)


@pytest.mark.parametrize("writes", [0, 1, 2])
async def test_a_kill_between_any_two_writes_of_a_rollback_forgets_no_quarantine(process: Any, writes: int) -> None:
    server, registry = Server(), Registry()
    operator = process(server, registry)
    await _settled(operator, server, 0)
    assert server.model["status"]["lastGood"]["version"] == 1
    registry.number = 2
    await operator.round(NOW, 100)
    assert server.version() == 2
    server.agent("Rejected")
    server.writes = writes
    try:
        await operator.round(NOW, 101)
    except Killed:
        server.agent("Live" if server.version() == 1 else "Rejected")  # the agent goes on meanwhile
    server.writes, server.exposures = 1_000, []
    restarted = process(server, registry)
    for step in range(4):
        await restarted.round(NOW, 200 + step)
        server.agent("Live" if server.version() == 1 else "Rejected")
    assert server.version() == 1
    assert 2 not in server.exposures  # exposed anew, it would be refused anew, and end the same
    assert [entry["manifest"] for entry in server.model["status"]["quarantined"]] == [digest(2)]


async def test_a_settled_rollout_writes_nothing(process: Any) -> None:
    server, registry = Server(), Registry()
    operator = process(server, registry)
    await _settled(operator, server, 0)
    server.writes = 0
    await operator.round(NOW, 10)
    await process(server, registry).round(NOW, 11)


async def test_a_heartbeat_lease_that_a_crash_left_out_is_made(process: Any) -> None:
    server = Server()
    server.heartbeats = []
    await process(server, Registry()).round(NOW, 0)
    assert server.created == ["one"]


async def test_a_changed_source_is_asked_at_once_and_an_unchanged_one_is_not(process: Any) -> None:
    server, registry = Server(), Registry()
    operator = process(server, registry)
    await _settled(operator, server, 0)
    assert registry.asked == 1
    server.model["spec"]["source"] = {"registeredModel": "nilm", "version": 3}
    await operator.round(NOW, 5)
    assert server.version() == 3


async def test_metrics_say_what_the_round_saw(process: Any) -> None:
    server, registry = Server(), Registry()
    await _settled(process(server, registry), server, 0)

    def value(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(name, labels)

    assert value("edgewright_nodes", model="n/x", state="live") == 1
    assert value("edgewright_rollout_wave", model="n/x") == 0
    assert value("edgewright_node_heartbeat_age_seconds", node="one") == 0
