"""A stage for crashes: 50 nodes of its own on the real API server, an operator in this process whose client's border
counts, records and kills, and agents that are played. Several stages share a server: each sees only its own objects.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from kubernetes.aio.client import ApiClient

from edgewright_contract import names
from edgewright_contract.release import Release
from edgewright_contract.timestamps import micro_time
from edgewright_local.control_plane import ControlPlane
from edgewright_operator import cluster, views
from edgewright_operator.acting import act
from edgewright_operator.api import Api, Body
from edgewright_operator.cluster import Cluster
from edgewright_operator.connection import configured
from edgewright_operator.election import Election
from edgewright_operator.facts import ReleaseFacts
from edgewright_operator.leading import leading
from edgewright_operator.mlflow import ModelVersion
from edgewright_operator.pacing import Pacing
from edgewright_operator.settings import Settings
from edgewright_operator.watching import Watched

SHARD = "edgewright.dev/test-stage"
NODES = 50
WAVES = [{"nodes": 1}, {"percent": 10}, {"percent": 25}, {"percent": 50}, {"percent": 100}]
_LISTED = {cluster.EDGE_NODES, cluster.NODES, cluster.LEASES, cluster.COMPRESSED_MODELS}


def manifest(version: int) -> str:
    return f"sha256:{version:064x}"


def release(version: int) -> Release:
    variant = {
        "name": "f",
        "file": "variants/f.onnx",
        "digest": "sha256:" + "1" * 64,
        "bytes": 400,
        "precision": "fp32",
        "parent": None,
        "parameters": 1,
        "macs": 1,
        "accuracy": None,
        "latency": {"p50Microseconds": 100, "p95Microseconds": 100, "machine": "test", "runtimeVersion": "1"},
        "golden": {"answers": [[0.5, 0.5]], "tolerance": 0.001},
    }
    return Release.model_validate(
        {
            "registeredModel": "nilm-test",
            "version": version,
            "sequence": 100 + version,
            "labels": ["kettle", "fridge"],
            "window": {"seconds": 64, "hopSeconds": 16},
            "variants": [variant],
            "golden": {"digest": "sha256:" + "2" * 64, "count": 1},
            "provenance": {
                "recipeDigest": "sha256:" + "3" * 64,
                "dataDigest": "sha256:" + "4" * 64,
                "synthetic": True,
                "created": "2026-01-01T00:00:00Z",
            },
        }
    )


@dataclass
class Shelf:
    """MLflow's alias and the gateway's answer about the version that it names."""

    number: int = 1
    answered: set[str] = field(default_factory=set)
    """Manifests that the gateway vouched for."""

    async def alias(self, *_: str) -> ModelVersion:
        return ModelVersion(self.number, {names.TAG_MANIFEST: manifest(self.number)})

    async def release(self, _: str, version: int, digest: str) -> tuple[ReleaseFacts, None]:
        self.answered.add(digest)
        return ReleaseFacts(release(version), digest), None


class Border(Api):
    """The client's border of one operator process: shows it its own stage only, and kills it after `lives` writes."""

    def __init__(self, client: ApiClient, shard: str, world: Any, election: Election) -> None:
        super().__init__(client, Pacing(), lambda: time.monotonic() < election.sure_until)
        self.shard, self.world = shard, world
        self.lives: int | None = None
        self.under_way: set[asyncio.Future[bytes]] = set()
        self.dead = asyncio.get_running_loop().create_future()

    async def read(self, path: str, *, accept: str = Body.JSON, **query: str) -> bytes:
        return await super().read(self._mine(path), accept=accept, **self._selected(path, query))

    @asynccontextmanager
    async def stream(self, path: str, query: Mapping[str, str], accept: str) -> AsyncIterator[Any]:
        async with super().stream(path, self._selected(path, query), accept) as lines:
            yield lines

    async def write(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, fenced: bool = True, **how: Any
    ) -> bytes:
        if self.dead.done():
            await asyncio.Event().wait()  # a dead process does nothing more
        if not fenced and body is not None:  # the election's Lease
            named = body | {"metadata": body["metadata"] | {"name": f"election-{self.shard}"}}
            return await super().write(method, self._mine(path), named, fenced=False, **how)
        sent = asyncio.ensure_future(super().write(method, path, body, fenced=fenced, **how))
        sent.add_done_callback(lambda done: self._landed(done, method, path, body))
        self.under_way.add(sent)
        try:
            answer = await asyncio.shield(sent)
        except asyncio.CancelledError:
            await asyncio.wait((sent, self.dead), return_when=asyncio.FIRST_COMPLETED)  # the living see it to its end
            raise
        if self.dead.done():
            await asyncio.Event().wait()  # killed by it, or by another that landed meanwhile
        return answer

    def _landed(self, done: asyncio.Future[bytes], method: str, path: str, body: Any) -> None:
        """It went through, whoever lives to hear of it."""
        self.under_way.discard(done)
        if done.cancelled() or done.exception() is not None:
            return
        self.world.wrote(method, path, body)
        if self.lives is not None:  # counted also where its sender gave up waiting, as beside another write's trouble
            self.lives -= 1
            if self.lives <= 0 and not self.dead.done():
                self.dead.set_result(None)

    def _mine(self, path: str) -> str:
        return path.replace(f"/leases/{names.OPERATOR_LEASE}", f"/leases/election-{self.shard}")

    def _selected(self, path: str, query: Mapping[str, str]) -> dict[str, str]:
        if path not in _LISTED:
            return dict(query)
        selectors = [f"{SHARD}={self.shard}", *([query["labelSelector"]] if "labelSelector" in query else [])]
        return {**query, "labelSelector": ",".join(selectors)}


class Agents:
    """Go live on whatever they are assigned, or refuse: played over one watch, with the rights of each node."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.queue = stage, asyncio.Queue[str]()
        client = stage.client
        assert client is not None
        api = Border(client, stage.shard, None, Election("nobody", 1))
        self.watched = Watched(api, cluster.EDGE_NODES, views.edge_node, lambda name, *_: self.queue.put_nowait(name))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.watched.run())
            group.create_task(self._beat())
            for _ in range(4):
                group.create_task(self._answer())

    async def _beat(self) -> None:
        """Heartbeats, without which every node is offline after a quarter of an hour."""
        while True:
            await asyncio.sleep(names.HEARTBEAT_SECONDS / 2)
            renewed = {"spec": {"renewTime": micro_time(datetime.now(UTC))}}
            for node in self.stage.nodes:
                await self.stage.admin_("PATCH", f"{cluster.LEASES}/{node}", renewed, self.stage.as_agent(node))

    async def _answer(self) -> None:
        while True:
            name = await self.queue.get()
            node = self.watched.items.get(name)
            if node is None or node.spec is None or not node.spec.models:
                continue
            live = node.spec.models[0].live
            told = node.models[0] if node.models else None
            if live is None or (told is not None and told.target == live.manifest):
                continue
            await self.stage.say(name, self._state(name, live.manifest, live.version, told))

    def _state(self, name: str, target: str, version: int, told: Any) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": self.stage.key, "state": "Live", "target": target}
        served = {"version": version, "manifest": target, "variant": "f"}
        if self.stage.refuses(name, target):
            entry |= {"state": "Rejected", "reason": "SelfTestFailed"}
            served = told.live.model_dump(by_alias=True, mode="json") if told and told.live else {}
        else:
            entry["figures"] = {
                "samples": 1000, "effectiveSamples": 1000, "errors": 0, "p50Microseconds": 90, "p95Microseconds": 100,
                "agreement": 1.0, "unknownRatio": 0.0, "drift": 0.0, "rssBytes": 1000, "manifest": target,
                "previousP95Microseconds": 100, "previousRssBytes": 1000,
            }  # fmt: skip
            entry["previous"] = told.live.model_dump(by_alias=True, mode="json") if told and told.live else served
        return entry | ({"live": served} if served else {})


@dataclass
class Stage:
    """One namespace with its Nodes and its CompressedModel."""

    plane: ControlPlane
    as_agent: Callable[[str], dict[str, str]]
    shard: str = field(default_factory=lambda: f"s{secrets.token_hex(3)}")
    shelf: Shelf = field(default_factory=Shelf)
    client: ApiClient | None = None
    admin: httpx2.AsyncClient | None = None
    bad: str = ""
    """A manifest that all nodes refuse but the first six, which is one more than the second wave has."""
    accepted: set[str] = field(default_factory=set)
    heard: list[Callable[[str, dict[str, Any]], None]] = field(default_factory=list)
    """Told of every word of an agent about its model."""

    def __post_init__(self) -> None:
        self.key = f"{self.shard}/nilm"
        self.nodes = [f"{self.shard}-{index:02}" for index in range(NODES)]
        self.path = f"/apis/{names.API_VERSION}/namespaces/{self.shard}/{names.COMPRESSED_MODELS}/nilm"

    def refuses(self, node: str, target: str) -> bool:
        if target == self.bad and len(self.accepted) < 6:
            self.accepted.add(node)
        return target == self.bad and node not in self.accepted

    async def build(self) -> None:
        """Namespace, Nodes, heartbeats, and a wish; nothing is decided yet."""
        labels = {SHARD: self.shard, names.LABEL_AGENT: "true"}
        self.plane.api.create_namespace(self.shard, {names.ANNOTATION_NODE_SELECTOR: f"{SHARD}={self.shard}"})
        rollout = {"waves": WAVES, "soak": "0s", "maxUnavailable": "100%", "gates": {"interval": "1s", "minSamples": 1}}
        source = {"registeredModel": "nilm-test", "alias": "production"}
        spec = {"source": source, "rollout": rollout, "selection": {"variant": "f"}}
        metadata = {"name": "nilm", "namespace": self.shard, "labels": {SHARD: self.shard}}
        self.plane.api.apply(
            [{"apiVersion": names.API_VERSION, "kind": "CompressedModel", "metadata": metadata, "spec": spec}]
        )
        hardware = {"class": "amd64-test", "arch": "amd64", "cpu": "t", "cores": 1, "memoryBytes": 1}
        hardware |= {"agentVersion": "1", "runtimeVersion": "1"}
        renewed = micro_time(datetime.now(UTC))
        for node in self.nodes:
            uid = self.plane.create_node(node, labels)["metadata"]["uid"]
            owner = [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}]
            body = {"metadata": {"name": node, "labels": labels, "ownerReferences": owner}}
            await self.admin_("POST", cluster.LEASES, body | {"spec": {"renewTime": renewed}})
            kind = {"apiVersion": names.API_VERSION, "kind": "EdgeNode", "spec": {}}
            await self.admin_("POST", cluster.EDGE_NODES, body | kind)
            await self.say(node, None, hardware)

    async def say(self, node: str, entry: dict[str, Any] | None, hardware: dict[str, Any] | None = None) -> None:
        for told in self.heard if entry else ():
            told(node, entry or {})
        status = {"hardware": hardware} if hardware else {"models": [entry]}
        path = f"{cluster.EDGE_NODES}/{node}/status"
        await self.admin_("PATCH", path, {"status": status}, self.as_agent(node))

    async def admin_(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        assert self.admin is not None
        answer = await self.admin.request(method, path, json=body, headers=headers)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return dict(answer.json())


class Process:
    """One operator process, begun at once."""

    def __init__(self, stage: Stage, world: Any, client: ApiClient | None = None, **more: Any) -> None:
        client = client or stage.client
        assert client is not None
        self.world, self.ending = world, asyncio.Event()
        self.election = Election(f"operator-{secrets.token_hex(3)}", 1)
        self.border = Border(client, stage.shard, world, self.election)
        mine = Cluster(self.border)
        given: dict[str, Any] = {"interval": 0.2, "poll_seconds": 0.1, **more}
        settings = Settings(mlflow_url="-", gateway_url="-", gateway_token_file=Path("-"), **given)
        shelf: Any = stage.shelf
        self.task = asyncio.create_task(
            leading(self.election, mine, lambda: act(mine, shelf, shelf, settings), self.ending)
        )

    async def until(self, wanted: Callable[[Any], bool], lives: int | None = None) -> bool:
        """Goes on until the world is as wanted, or until it is killed by its `lives`-th write from here on; which."""
        self.border.lives = lives

        async def watch() -> None:
            while not wanted(self.world):  # noqa: ASYNC110 - it asks a plain value
                await asyncio.sleep(0.02)

        reached = asyncio.create_task(watch())
        try:
            async with asyncio.timeout(150):
                await asyncio.wait((self.task, reached, self.border.dead), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pytest.fail(f"not within 150 s: {json.dumps(self.world.model)[:2000]} {self.world.exposed}")
        finally:
            reached.cancel()
        if self.task.done():
            pytest.fail(f"the operator ended by itself: {self.task!r}")
        return self.border.dead.done()

    async def end(self) -> None:
        """A killed process leaves its Lease behind, another gives it up."""
        if self.border.dead.done():
            self.task.cancel()
        else:
            self.ending.set()
        await asyncio.gather(self.task, return_exceptions=True)
        if self.border.under_way:  # what was on the wire lands without its sender
            await asyncio.wait(self.border.under_way)


@pytest.fixture
def stages(
    control_plane: ControlPlane, crds: list[str], as_agent: Callable[[str], dict[str, str]]
) -> Callable[[], Any]:
    """Opens a stage with its agents running; everything of it is deleted afterwards."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Stage]:
        with contextlib.suppress(Exception):
            control_plane.api.create_namespace(names.NAMESPACE)
        stage = Stage(control_plane, as_agent)
        headers = dict(control_plane.api.client.headers)
        configuration = await configured(control_plane.kubeconfig)
        trusted = ssl.create_default_context(cafile=str(control_plane.ca))
        async with (
            ApiClient(configuration) as client,
            httpx2.AsyncClient(
                base_url=control_plane.url, verify=trusted, headers=headers, timeout=30, trust_env=False
            ) as admin,
        ):
            stage.client, stage.admin = client, admin
            await stage.build()
            agents = asyncio.create_task(Agents(stage).run())
            try:
                yield stage
            finally:
                agents.cancel()
                await asyncio.gather(agents, return_exceptions=True)
                for node in stage.nodes:
                    for path in (cluster.EDGE_NODES, cluster.LEASES, cluster.NODES):
                        await stage.admin_("DELETE", f"{path}/{node}")
                await stage.admin_("DELETE", stage.path)
                await stage.admin_("DELETE", f"{cluster.NAMESPACES}/{stage.shard}")

    return opened


@pytest.fixture
def processes() -> Callable[[Stage, Any], Process]:
    return Process
