"""All agents of the bench in one process: one watch for each thousand nodes, one status write for each move."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import msgspec
from rollout_fleet.site import (
    EDGE_NODES,
    KEY,
    LEASES,
    MERGE,
    PER_WATCH,
    SHARD,
    SLIM,
    VARIANT,
    Site,
    hardware,
    manifest,
    many,
)

from edgewright_contract.timestamps import micro_time


class Live(msgspec.Struct):
    version: int
    manifest: str
    variant: str


class _Assigned(msgspec.Struct):
    live: Live | None = None


class _Spec(msgspec.Struct):
    models: list[_Assigned] = []


class _Metadata(msgspec.Struct):
    name: str = ""


class _Object(msgspec.Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    spec: _Spec = msgspec.field(default_factory=_Spec)


class _Event(msgspec.Struct):
    type: str
    object: _Object


ENDLESS = aiohttp.ClientTimeout(total=None)
_decode = msgspec.json.Decoder(_Event).decode


def figures(manifest: str) -> dict[str, Any]:
    """What a healthy node measured."""
    return {
        "manifest": manifest, "samples": 1000, "effectiveSamples": 1000, "errors": 0, "p50Microseconds": 90,
        "p95Microseconds": 100, "agreement": 1.0, "unknownRatio": 0.0, "drift": 0.0, "rssBytes": 100_000_000,
        "previousP95Microseconds": 100, "previousRssBytes": 100_000_000, "since": "2026-01-01T00:00:00Z",
    }  # fmt: skip


def acknowledged(live: Live, before: dict[str, Any] | None) -> dict[str, Any]:
    """The one status write at the end of a move."""
    served = {"version": live.version, "manifest": live.manifest, "variant": live.variant}
    entry = {"name": KEY, "state": "Live", "reason": "Serving", "target": live.manifest, "live": served}
    entry |= {"previous": before or served, "figures": figures(live.manifest)}
    return {"status": {"models": [entry]}}


@dataclass(slots=True)
class Agents:
    """`served`: what each node went live on last; `counts`: nodes whose last acknowledged version is the key."""

    site: Site
    served: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: Counter[int] = field(default_factory=Counter)
    queue: asyncio.Queue[tuple[str, Live]] = field(default_factory=asyncio.Queue)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def wake(self) -> None:
        """Hardware and heartbeat of every node."""
        renewed = {"spec": {"renewTime": micro_time(datetime.now(UTC))}}

        async def one(name: str) -> None:
            await self.site.call("PATCH", f"{EDGE_NODES}/{name}/status", {"status": {"hardware": hardware()}}, MERGE)
            await self.site.call("PATCH", f"{LEASES}/{name}", renewed, MERGE)

        await many(self.site.nodes, one)

    async def run(self) -> None:
        """Watch and answer until cancelled."""
        async with asyncio.TaskGroup() as group:
            for shard in range((len(self.site.nodes) + PER_WATCH - 1) // PER_WATCH):
                group.create_task(self._watch(shard))
            for _ in range(16):
                group.create_task(self._answer())

    async def all_live(self, version: int, limit: float) -> float:
        """When (monotonic) every node had told that it serves the version.

        Raises:
            TimeoutError: not within `limit` seconds.
        """
        async with asyncio.timeout(limit):
            while self.counts[version] < len(self.site.nodes):  # looked at after each answer: not a sum over nodes
                self.moved.clear()
                await self.moved.wait()
        return time.monotonic()

    async def _watch(self, shard: int) -> None:
        path = f"{EDGE_NODES}?watch=true&labelSelector={SHARD}%3D{shard}&sendInitialEvents=true"
        path += "&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=3600"
        while True:  # the API server closes the watch of a reader that is too slow for it
            async with self.site.session.get(self.site.plane.url + path, timeout=ENDLESS) as answer:
                async for line in answer.content:
                    event = _decode(line)
                    if event.type == "ERROR":
                        break
                    if event.type != "BOOKMARK":
                        self._seen(event)

    def _seen(self, event: _Event) -> None:
        name, models = event.object.metadata.name, event.object.spec.models
        live = models[0].live if models else None
        if live is not None and self.served.get(name, {}).get("manifest") != live.manifest:
            self.queue.put_nowait((name, live))

    async def _answer(self) -> None:
        while True:
            name, live = await self.queue.get()
            before = self.served.get(name)
            if before is not None and before["manifest"] == live.manifest:
                continue
            body = acknowledged(live, before)
            self.served[name] = body["status"]["models"][0]["live"]
            await self.site.call("PATCH", f"{EDGE_NODES}/{name}/status", body, SLIM)
            self.counts[live.version] += 1
            if before is not None:
                self.counts[before["version"]] -= 1
            self.moved.set()


async def real_watches(site: Site, count: int) -> float:
    """The API server's megabytes while `count` nodes watch their own object, each over a connection of its own."""
    ready = 0
    opened = asyncio.Event()

    async def one(name: str) -> None:
        nonlocal ready
        path = f"{EDGE_NODES}?watch=true&fieldSelector=metadata.name%3D{name}&timeoutSeconds=3600"
        async with site.session.get(site.plane.url + path, timeout=ENDLESS) as answer:
            await answer.content.readline()
            ready += 1
            if ready == count:
                opened.set()
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(one(name)) for name in site.nodes[:count]]
    try:
        async with asyncio.timeout(120):
            await opened.wait()
        await asyncio.sleep(2)
        return site.memory("kube-apiserver")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def spec_body(version: int) -> dict[str, Any]:
    """The patch that a bare client sends for a move: what the operator writes, without a thought."""
    live = {
        "version": version, "sequence": 1_700_000_000 + version, "manifest": manifest(version),
        "variant": VARIANT,
    }  # fmt: skip
    models = [{"name": KEY, "registeredModel": "nilm-bench", "live": live}]
    return {"metadata": {"managedFields": [{}]}, "spec": {"trust": "sha256:" + "7" * 64, "models": models}}
