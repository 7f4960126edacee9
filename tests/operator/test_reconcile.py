"""What the gateway may answer, and the order of writes around kills and conflicts."""

import asyncio
import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client import REGISTRY

from edgewright_contract import keys, names, permit
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import AssignedModel
from edgewright_operator import metrics, views
from edgewright_operator.api import ClusterError, Conflict, Unavailable
from edgewright_operator.cluster import Cluster
from edgewright_operator.facts import ReleaseFacts, SourceProblem
from edgewright_operator.fleet import Fleet
from edgewright_operator.mlflow import ModelVersion
from edgewright_operator.polling import Polling
from edgewright_operator.promql import Asked, Promql
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
    """The API server's objects and the watches on them; ends the process after `writes` of spec or status."""

    at_once = 4

    def __init__(self) -> None:
        self.model: dict[str, Any] = {
            "metadata": {"namespace": "n", "name": "x", "uid": "u", "generation": 1, "resourceVersion": "1"},
            "spec": {
                "source": {"registeredModel": "nilm", "alias": "production"},
                "rollout": {"waves": [{"percent": 100}], "soak": "0s", "maxUnavailable": "100%"},
            },
        }
        self.node: dict[str, Any] = {"metadata": {"name": "one", "uid": "e", "resourceVersion": "1"}, "spec": {}}
        self.exposures: list[int] = []
        self.events: list[str] = []
        self.writes = 1_000
        self.version_of_last_write = 1
        self.raised: list[ClusterError] = []
        self.no_events: ClusterError | None = None
        self.lost = ""
        """The next write of this kind goes through, and its answer does not come."""
        self.on: list[str] = []
        """The versions that statuses were written on."""

    def _written(self, item: dict[str, Any]) -> dict[str, Any]:
        if self.writes == 0:
            raise Killed
        self.writes -= 1
        if self.raised:
            raise self.raised.pop()
        self.version_of_last_write += 1
        return item | {"metadata": item["metadata"] | {"resourceVersion": str(self.version_of_last_write)}}

    def _answered(self, kind: str) -> None:
        if self.lost == kind:
            self.lost = ""
            raise Unavailable("no answer")

    async def write_spec(self, _: Any, spec: Any) -> str:
        self.node = self._written(self.node | {"spec": spec})
        self.exposures.append(self.version())
        self._answered("spec")
        return str(self.version_of_last_write)

    async def write_status(self, on: Any, status: Any) -> Any:
        self.on.append(on["metadata"]["resourceVersion"])
        self.model = self._written(self.model | {"status": status})
        self._answered("status")
        return self.model

    async def compressed_model(self, *_: str) -> Any:
        return self.model

    async def edge_node(self, _: str) -> Any:
        return views.edge_node(json.dumps(self.node).encode())

    async def create_event(self, _: Any, reason: str, *__: Any, **___: Any) -> None:
        if self.no_events is not None:
            raise self.no_events
        self.events.append(reason)

    def agent(self, state: str) -> None:
        wanted = self.node["spec"]["models"][0]["live"]
        served = {key: wanted[key] for key in ("version", "manifest", "variant")}
        before = (self.node.get("status") or {"models": [{}]})["models"][0].get("live")
        entry = {"name": "n/x", "state": state, "target": wanted["manifest"], "reason": "SelfTestFailed"}
        live = served if state == "Live" else before
        entry["figures"] = {"samples": 500, "effectiveSamples": 500, "agreement": 1.0}
        self.node = self._written(self.node | {"status": {"models": [entry | ({"live": live} if live else {})]}})

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
    version = json.loads(request.content)["version"]
    return httpx2.Response(200, json={"manifest": digest(version), "release": release(version), "trust": digest(8)})


class Process:
    """A fresh operator process in front of a server and a registry; each round sees what is there."""

    def __init__(self, server: Server, registry: Registry, token: Path, group: asyncio.TaskGroup) -> None:
        given: dict[str, Any] = {"gateway_token_file": token, "permit_key_file": token.parent / "permit.key"}
        settings = Settings(mlflow_url="-", gateway_url="http://g", single_tenant=True, **given)
        client = httpx2.AsyncClient(transport=httpx2.MockTransport(answers))
        self.server, self.monotonic = server, 0.0
        self.fleet = Fleet(None, lambda _: None, lambda: None)  # type: ignore[arg-type]
        self.polling = Polling(
            registry,  # type: ignore[arg-type]
            Gateway("http://g", token, client),
            30.0,
            group,
            lambda _: None,
            lambda: self.monotonic,
        )
        self.reconciler = Reconciler(server, self.fleet, self.polling, settings)  # type: ignore[arg-type]

    async def round(self, monotonic: float) -> None:
        self.monotonic = monotonic
        self.watch()
        await self.reconciler.model("n/x", NOW, monotonic)
        await asyncio.gather(*(task for _, task in self.polling.asking.values()))
        await self.reconciler.model("n/x", NOW, monotonic)

    def watch(self) -> None:
        view = views.edge_node(json.dumps(self.server.node).encode())
        self.fleet.edge_nodes.items[view.name] = view
        self.fleet.leases.items["one"] = views.LeaseView("one", "1", NOW)
        self.fleet.wishes.seen(self.server.model)


@pytest.fixture
async def process(token: Path) -> Any:
    async with asyncio.TaskGroup() as group:
        yield lambda server, registry: Process(server, registry, token, group)


async def _settled(operator: Process, server: Server, at: float, state: str = "Live") -> None:
    for step in range(4):
        await operator.round(at + step)
        server.agent(state)


@pytest.mark.parametrize("writes", [0, 1, 2])
async def test_a_kill_between_any_two_writes_of_a_rollback_forgets_no_quarantine(process: Any, writes: int) -> None:
    server, registry = Server(), Registry()
    operator = process(server, registry)
    await _settled(operator, server, 0)
    assert server.model["status"]["lastGood"]["version"] == 1
    registry.number = 2
    await operator.round(100)
    assert server.version() == 2
    server.agent("Rejected")
    server.writes = writes
    with contextlib.suppress(Killed):
        await operator.round(101)
    server.writes = 1_000
    server.agent("Live" if server.version() == 1 else "Rejected")  # the agent goes on meanwhile
    server.exposures = []
    restarted = process(server, registry)
    for step in range(4):
        await restarted.round(200 + step)
        server.agent("Live" if server.version() == 1 else "Rejected")
    assert server.version() == 1
    assert 2 not in server.exposures  # exposed anew, it would be refused anew, and end the same
    assert [entry["manifest"] for entry in server.model["status"]["quarantined"]] == [digest(2)]


async def test_a_settled_rollout_writes_nothing(process: Any) -> None:
    server, registry = Server(), Registry()
    operator = process(server, registry)
    await _settled(operator, server, 0)
    server.writes = 0
    await operator.round(10)
    await process(server, registry).round(11)


async def test_the_status_claims_a_wave_before_a_node_is_exposed_in_it(process: Any) -> None:
    server, registry = Server(), Registry()
    server.writes = 1
    with contextlib.suppress(Killed):
        await process(server, registry).round(0)
    assert server.model["status"]["wave"]["size"] == 1
    assert server.exposures == []


async def test_a_conflict_on_a_node_reads_it_anew_and_decides_anew(process: Any) -> None:
    server, registry = Server(), Registry()
    operator = process(server, registry)
    server.model["status"] = {}
    await operator.round(0)
    registry.number = 2
    operator.polling.due.clear()
    operator.watch()
    old = dict(server.node)
    server.agent("Live")  # the watch has not told yet
    operator.fleet.edge_nodes.items["one"] = views.edge_node(json.dumps(old).encode())

    async def refuses(node: Any, spec: Any) -> str:
        if node.version != server.node["metadata"]["resourceVersion"]:
            raise Conflict("changed", 409)
        return await Server.write_spec(server, node, spec)

    server.write_spec = refuses  # type: ignore[method-assign]
    operator.monotonic = 100
    await operator.reconciler.model("n/x", NOW, 100)
    await asyncio.gather(*(task for _, task in operator.polling.asking.values()))
    with pytest.raises(Conflict):
        await operator.reconciler.model("n/x", NOW, 101)
    assert operator.fleet.edge_nodes.items["one"].models  # as it is now
    await operator.reconciler.model("n/x", NOW, 102)
    assert server.version() == 2


async def test_a_conflict_on_the_status_moves_nobody(process: Any) -> None:
    server, registry = Server(), Registry()
    operator = process(server, registry)
    server.raised = [Conflict("changed", 409)]
    with pytest.raises(Conflict):
        await operator.round(0)
    assert server.exposures == []
    await operator.round(1)
    assert server.version() == 1


async def test_after_a_status_without_an_answer_the_next_round_decides_on_what_is_there(process: Any) -> None:
    server, registry = Server(), Registry()
    operator = process(server, registry)
    server.lost = "status"
    with pytest.raises(Unavailable):
        await operator.round(0)
    assert server.exposures == []
    claimed = server.model["metadata"]["resourceVersion"]
    await operator.reconciler.model("n/x", NOW, 1)  # no watch told
    assert server.exposures == [1]
    assert set(server.on[1:]) <= {claimed}


async def test_after_a_move_without_an_answer_the_next_round_decides_on_what_is_there(process: Any) -> None:
    server, registry = Server(), Registry()
    operator = process(server, registry)
    server.lost = "spec"
    with pytest.raises(Unavailable):
        await operator.round(0)
    await operator.reconciler.model("n/x", NOW, 1)  # no watch told
    assert server.exposures == [1]


async def test_a_changed_source_is_asked_at_once_and_an_unchanged_one_is_not(process: Any) -> None:
    server, registry = Server(), Registry()
    operator = process(server, registry)
    await _settled(operator, server, 0)
    assert registry.asked == 1
    source = {"registeredModel": "nilm", "version": 3}
    server.model = server._written(server.model | {"spec": server.model["spec"] | {"source": source}})
    await operator.round(5)
    assert server.version() == 3


async def test_an_object_that_cannot_be_read_says_so_once(process: Any) -> None:
    server, registry = Server(), Registry()
    operator = process(server, registry)
    await _settled(operator, server, 0)
    good, server.events = server.model["status"], []
    broken = server.model["spec"] | {"selection": {"objective": "Prettiest"}}
    server.model = server._written(server.model | {"spec": broken})
    for at in (10, 11):
        await operator.round(at)
    conditions = {entry["type"]: entry for entry in server.model["status"]["conditions"]}
    assert (conditions["Stalled"]["status"], conditions["Stalled"]["reason"]) == ("True", "InvalidSpec")
    assert "spec.selection.objective" in conditions["Stalled"]["message"]
    assert conditions["Ready"]["status"] == "False"
    assert server.model["status"]["lastGood"] == good["lastGood"]
    assert server.events == ["InvalidSpec"]


async def test_a_way_back_without_a_permit_key_is_told(process: Any) -> None:
    """The settings' key file is not there; the node goes back, and an Event says what it may refuse."""
    server, registry = Server(), Registry()
    operator = process(server, registry)
    await _settled(operator, server, 0)
    registry.number = 2
    for step in range(3):
        await operator.round(100 + step)
        server.agent("Live")
    server.events = []
    registry.number = 1
    await operator.round(200)
    assert server.version() == 1
    assert "permit" not in server.node["spec"]["models"][0]
    assert server.events.count("PermitMissing") == 1
    server.agent("Rejected")
    server.node["status"]["models"][0] |= {"reason": "Downgrade"}
    for at in (300, 301):
        server.events = []
        await operator.round(at)
    assert "PermitMissing" not in server.events
    server.writes = 0  # nothing is written again and again for want of the key
    await operator.round(302)
    server.writes = 10
    operator.reconciler.settings.permit_key_file.write_bytes(keys.private_pem(keys.generate()))
    await operator.round(303)
    assert permit.peek(server.node["spec"]["models"][0]["permit"]).to_manifest == digest(1)


async def test_an_object_that_is_gone_is_told_once_and_its_queries_are_forgotten(process: Any) -> None:
    server, registry = Server(), Registry()
    operator = process(server, registry)
    await _settled(operator, server, 0)
    async with httpx2.AsyncClient() as client:
        operator.reconciler.promql = promql = Promql(None, client)
        promql.known["n/x"] = Asked([], 0.0)
        server.events, server.model = [], None  # type: ignore[assignment]
        operator.fleet.wishes.gone("n/x")
        for step in range(2):
            await operator.reconciler.model("n/x", NOW, 10 + step)
        assert promql.known == {}
    assert server.events == ["Orphaned"]
    assert server.node["spec"]["models"][0]["orphaned"] is True


async def test_an_object_that_is_gone_is_told_also_where_the_answers_are_lost(process: Any) -> None:
    server, registry = Server(), Registry()
    operator = process(server, registry)
    await _settled(operator, server, 0)
    server.events, server.model = [], None  # type: ignore[assignment]
    operator.fleet.wishes.gone("n/x")
    server.lost, server.no_events = "spec", Unavailable("busy", 429)
    for at in (10, 11):  # the entry was marked and nobody heard of it; then it is read, and the Event is refused
        with pytest.raises(Unavailable):
            await operator.reconciler.model("n/x", NOW, at)
        assert server.node["spec"]["models"][0]["orphaned"] is True
    server.no_events = None
    for at in (12, 13):
        await operator.reconciler.model("n/x", NOW, at)
    assert server.events == ["Orphaned"]


async def test_events_wait_for_an_api_server_in_trouble_and_hold_up_nothing(process: Any) -> None:
    server, registry = Server(), Registry()
    operator = process(server, registry)
    server.no_events = Unavailable("busy", 429)
    await operator.round(0)
    assert server.version() == 1
    assert server.events == []
    server.agent("Live")
    server.no_events = None
    await operator.round(1)
    assert server.events == ["RollingOut", "RolledOut"]
    server.no_events = ClusterError("the namespace is terminating", 403)  # for good: not tried again
    registry.number = 2
    await operator.round(100)
    server.no_events = None
    await operator.round(101)
    assert server.events == ["RollingOut", "RolledOut"]


async def test_what_prometheus_answered_before_a_wave_began_does_not_count_for_it(process: Any) -> None:
    server, registry = Server(), Registry()
    check = {"name": "complaints", "query": "q", "max": 1}
    server.model["spec"]["rollout"] |= {"gates": {"prometheus": [check], "interval": "1h"}}
    said = {"status": "success", "data": {"resultType": "scalar", "result": [0, "0"]}}
    operator = process(server, registry)
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, json=said))) as client:
        operator.reconciler.promql = promql = Promql("http://p", client)

        async def rounds(at: float) -> None:
            for step in range(3):
                await operator.round(at + step)
                server.agent("Live")
                await asyncio.gather(*promql.asking.values())

        await rounds(0)
        assert promql.known["n/x"].answers["complaints"].value == 0
        registry.number = 2
        await operator.round(100)  # within the hour of the interval, and yet
        assert server.version() == 2
        assert promql.known == {}


async def test_metrics_say_what_the_round_saw(process: Any) -> None:
    server, registry = Server(), Registry()
    operator = process(server, registry)
    await _settled(operator, server, 0)
    assert REGISTRY.get_sample_value("edgewright_nodes", {"model": "n/x", "state": "live"}) == 1
    assert REGISTRY.get_sample_value("edgewright_rollout_wave", {"model": "n/x"}) == 0
    age, _ = metrics.NodeMetrics(operator.fleet, lambda: NOW.timestamp() + 7).collect()
    assert [(sample.labels, sample.value) for sample in age.samples] == [({"node": "one"}, 7.0)]
    metrics.forgotten("n/x")
    assert REGISTRY.get_sample_value("edgewright_nodes", {"model": "n/x", "state": "live"}) is None


class Writes:
    """An API server that takes `good` writes and is in trouble from then on."""

    def __init__(self, good: int) -> None:
        self.good, self.asked, self.at_once, self.most = good, 0, 0, 0

    async def write(self, *_: Any, **__: Any) -> bytes:
        self.asked += 1
        number = self.asked
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if number > self.good:
            raise Unavailable("busy", 429)
        return json.dumps({"metadata": {"name": "x", "resourceVersion": str(1000 + number)}}).encode()


async def test_moves_leave_a_few_at_once_and_the_first_trouble_stops_the_rest() -> None:
    api = Writes(good=20)
    fleet = Fleet(None, lambda _: None, lambda: None)  # type: ignore[arg-type]
    reconciler = Reconciler(Cluster(api, writes=4), fleet, None, None)  # type: ignore[arg-type]
    found = [{"metadata": {"name": f"n{index}", "resourceVersion": "1"}, "spec": {}} for index in range(200)]
    nodes = {each["metadata"]["name"]: views.edge_node(json.dumps(each).encode()) for each in found}
    fleet.edge_nodes.items.update(nodes)
    live = {"version": 1, "sequence": 1, "manifest": digest(1), "variant": "f"}
    to = AssignedModel.model_validate({"name": "n/x", "registeredModel": "nilm", "live": live})
    with pytest.raises(Unavailable):
        await reconciler._apply("n/x", dict.fromkeys(nodes, to), nodes, None)
    assert api.most == 4
    assert api.asked <= 20 + 2 * 4  # of 200: those that were leaving when it was heard
    moved = [view for view in fleet.edge_nodes.items.values() if view.version != "1"]
    assert 20 - 4 < len(moved) <= 20
