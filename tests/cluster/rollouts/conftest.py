"""A proxy before the real API server that drops, refuses, delays, goes stale and tells; in a thread of its own.

And the history of a stage: every write of the operator and every word of an agent, held against the promises.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from edgewright_contract import names
from edgewright_local.control_plane import ControlPlane
from edgewright_operator.cluster import EDGE_NODES, LEASES


@dataclass
class World:
    """What all writes that went through add up to, and every promise that was broken on the way."""

    verified: set[str]
    """Manifests that the gateway vouched for."""
    model: dict[str, Any] = field(default_factory=dict)
    exposed: dict[str, str | None] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)
    said: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each agent wrote last."""
    sequences: dict[str, int] = field(default_factory=dict)
    assigned: set[tuple[str, str]] = field(default_factory=set)
    served: set[tuple[str, str]] = field(default_factory=set)
    breaks: list[str] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        """Every break of a promise; a node may be heard before its assignment is, so that is judged at the end."""
        strays = sorted(self.served - self.assigned)
        return [*self.breaks, *(f"{node} serves {found[-3:]}, unassigned" for node, found in strays)]

    def heard(self, node: str, entry: dict[str, Any]) -> None:
        """An agent wrote its status."""
        self.said[node] = entry
        if live := entry.get("live"):
            self.served.add((node, live["manifest"]))

    def wrote(self, method: str, path: str, body: Mapping[str, Any] | None) -> None:
        """A write of the operator went through."""
        kind = _kind(method, path)
        self.writes.append(kind)
        assert body is not None
        if kind == "status":
            before, self.model = self.model, dict(body["status"])
            self._evidence(before)
        elif kind == "spec":
            name, entries = path.rpartition("/")[2], body["spec"]["models"]
            live = entries[0].get("live") if entries else None
            had, self.exposed[name] = self.exposed.get(name), live and live["manifest"]
            if live and live["manifest"] != had:
                self._exposure(live["manifest"])
                self._sequence(name, entries[0])

    def _evidence(self, before: Mapping[str, Any]) -> None:
        """A release becomes good by a gate that passed, on samples that agents told."""
        manifest = (self.model.get("lastGood") or {}).get("manifest")
        if manifest is None or manifest == (before.get("lastGood") or {}).get("manifest"):
            return
        if (self.model.get("gate") or {}).get("verdict") != "Pass":
            self.breaks.append(f"{manifest[-3:]} promoted without a gate that passed")
        serving = [entry for entry in self.said.values() if (entry.get("live") or {}).get("manifest") == manifest]
        if not sum((entry.get("figures") or {}).get("effectiveSamples", 0) for entry in serving):
            self.breaks.append(f"{manifest[-3:]} promoted without a sample")

    def _exposure(self, after: str) -> None:
        target, good = self.model.get("release") or {}, self.model.get("lastGood") or {}
        if after not in self.verified:
            self.breaks.append(f"exposed to {after[-3:]}, which nobody verified")
        if after in {entry["manifest"] for entry in self.model.get("quarantined") or []}:
            self.breaks.append(f"exposed to {after[-3:]}, which is quarantined")
        elif after == target.get("manifest") and after != good.get("manifest"):
            count = sum(found == after for found in self.exposed.values())
            if count > self.model["wave"]["size"]:
                self.breaks.append(f"{count} exposed in a wave of {self.model['wave']['size']}")
        elif after != good.get("manifest"):
            self.breaks.append(f"exposed to {after[-3:]}, which is neither the target nor good")

    def _sequence(self, node: str, entry: Mapping[str, Any]) -> None:
        """A node goes to an older release with a permit, or to what it served itself."""
        live = entry["live"]
        before, self.sequences[node] = self.sequences.get(node, 0), live["sequence"]
        self.assigned.add((node, live["manifest"]))
        own = [(self.said.get(node, {}).get(which) or {}).get("manifest") for which in ("live", "previous")]
        if live["sequence"] < before and not entry.get("permit") and live["manifest"] not in own:
            self.breaks.append(f"{node} sent back from {before} to {live['sequence']} without a permit")


def _kind(method: str, path: str) -> str:
    if path.endswith("/status"):
        return "status"
    if path.endswith("/events"):
        return "event"
    if path.startswith(EDGE_NODES):
        return "spec" if method == "PATCH" else "edge node"
    return "heartbeat" if path.startswith(LEASES) else path


@pytest.fixture
def worlds() -> Callable[[Any], World]:
    """The history of a stage, from here on."""

    def begun(stage: Any) -> World:
        world = World(stage.shelf.answered, exposed=dict.fromkeys(stage.nodes))
        stage.heard.append(world.heard)
        return world

    return begun


class Fault(Enum):
    """What is done to one request."""

    DROP = auto()
    """The connection ends before the request reaches the API server."""
    CUT = auto()
    """The request is carried out, its answer is lost."""
    CONFLICT = auto()
    GONE = auto()
    BUSY = auto()
    BROKEN = auto()
    STALE = auto()
    """A list answers what it answered before."""
    STALL = auto()
    """A watch stays open and silent; another request is answered late."""
    LATE = auto()
    """The request reaches the API server late, also if nobody waits for its answer any more."""
    SHORT = auto()
    """A watch ends after its first event."""


_CODES = {Fault.CONFLICT: 409, Fault.GONE: 410, Fault.BUSY: 429, Fault.BROKEN: 500}
_HOP = {"accept-encoding", "connection", "content-length", "host", "transfer-encoding", "content-encoding"}


@dataclass(frozen=True)
class Seen:
    """One request, when it came."""

    at: float
    method: str
    path: str
    query: dict[str, str]
    agent: str
    body: bytes = b""

    @property
    def writes(self) -> bool:
        return self.method != "GET"

    @property
    def watches(self) -> bool:
        return "watch" in self.query

    @property
    def elects(self) -> bool:
        return self.path.rsplit("/", 1)[-1] in ("leases", names.OPERATOR_LEASE) and (
            self.path.endswith(names.OPERATOR_LEASE) or self.method == "POST"
        )


@dataclass
class Proxy:
    """`fault(request)` is asked about every request, as soon as `held(request)` lets it go.

    `answered(request, code)` is told what the API server answered, at once, however late that goes back.
    """

    plane: ControlPlane
    folder: Path
    fault: Callable[[Seen], Fault | None] = lambda _: None
    held: Callable[[Seen], bool] = lambda _: False
    answered: Callable[[Seen, int], None] = lambda *_: None
    seen: list[Seen] = field(default_factory=list)
    url: str = ""
    session: aiohttp.ClientSession | None = None
    old: dict[str, tuple[int, bytes, str]] = field(default_factory=dict)

    @property
    def kubeconfig(self) -> Path:
        document = yaml.safe_load(self.plane.kubeconfig.read_text())
        for entry in document["clusters"]:
            entry["cluster"] = {"server": self.url}
        file = self.folder / f"proxied-{self.url.rsplit(':', 1)[-1]}.kubeconfig"
        file.write_text(yaml.safe_dump(document))
        return file

    async def handle(self, request: web.Request) -> web.StreamResponse:
        agent = request.headers.get("User-Agent", "")
        body = await request.read()
        seen = Seen(time.monotonic(), request.method, request.path, dict(request.query), agent, body)
        self.seen.append(seen)
        while self.held(seen):  # noqa: ASYNC110 - it asks a plain value
            await asyncio.sleep(0.02)
        fault = self.fault(seen)
        if fault in _CODES:
            told = {"kind": "Status", "message": f"injected {fault.name}", "code": _CODES[fault]}
            return web.json_response(told, status=_CODES[fault], headers={"Retry-After": "1"})
        if fault is Fault.DROP:
            return self._closed(request)
        if fault is Fault.LATE:
            await asyncio.sleep(1.0)
        if fault is Fault.STALE and request.path_qs in self.old:
            code, data, kind = self.old[request.path_qs]
            return web.Response(status=code, body=data, content_type=kind)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _HOP}
        assert self.session is not None
        async with self.session.request(
            request.method, self.plane.url + request.path_qs, headers=headers, data=body or None
        ) as answer:
            if seen.watches and answer.status == 200:
                return await self._streamed(request, answer, fault)
            data = await answer.read()
            self.answered(seen, answer.status)
            if fault is Fault.STALL:
                await asyncio.sleep(1.0)
            if fault is Fault.CUT:
                return self._closed(request)
            if request.method == "GET":
                self.old.setdefault(request.path_qs, (answer.status, data, answer.content_type))
            return web.Response(status=answer.status, body=data, content_type=answer.content_type)

    async def _streamed(
        self, request: web.Request, answer: aiohttp.ClientResponse, fault: Fault | None
    ) -> web.StreamResponse:
        out = web.StreamResponse(headers={"Content-Type": "application/json"})
        await out.prepare(request)
        async for line in answer.content:
            if fault is Fault.STALL:
                continue
            with contextlib.suppress(ConnectionError):  # who listened was killed
                await out.write(line)
            if fault is Fault.SHORT:
                return self._closed(request)
        return out

    @staticmethod
    def _closed(request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=502)


def _serve(proxy: Proxy, ready: threading.Event, stop: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    async def run() -> None:
        trusted = ssl.create_default_context(cafile=str(proxy.plane.ca))
        connector = aiohttp.TCPConnector(ssl=trusted, limit=0)
        async with aiohttp.ClientSession(connector=connector, read_bufsize=2**21) as session:
            application = web.Application(client_max_size=2**24)
            proxy.session = session
            application.router.add_route("*", "/{path:.*}", proxy.handle)
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            ready.set()
            await stop.wait()
            await runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await asyncio.sleep(0.1)  # connections close in the loop's next turns

    asyncio.set_event_loop(loop)
    loop.run_until_complete(run())
    loop.close()


@pytest.fixture
def proxied(control_plane: ControlPlane, crds: list[str], tmp_path: Path) -> Iterator[Callable[[], Proxy]]:
    """Begins a proxy."""
    running: list[tuple[threading.Thread, asyncio.AbstractEventLoop, asyncio.Event]] = []

    def begun() -> Proxy:
        proxy, ready, stop, loop = (
            Proxy(control_plane, tmp_path),
            threading.Event(),
            asyncio.Event(),
            asyncio.new_event_loop(),
        )
        thread = threading.Thread(target=_serve, args=(proxy, ready, stop, loop), daemon=True)
        thread.start()
        assert ready.wait(10)
        running.append((thread, loop, stop))
        return proxy

    yield begun
    for thread, loop, stop in running:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


@pytest.fixture
def faults() -> type[Fault]:
    return Fault
