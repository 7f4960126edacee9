"""A proxy before the real API server that drops, refuses, delays, goes stale and tells; in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

import aiohttp
import pytest
import yaml
from aiohttp import web

from edgewright_contract import names
from edgewright_local.control_plane import ControlPlane


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
    """`fault(request)` is asked about every request, `answered(request, code)` told before the answer goes back."""

    plane: ControlPlane
    folder: Path
    fault: Callable[[Seen], Fault | None] = lambda _: None
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
        fault = self.fault(seen)
        if fault in _CODES:
            told = {"kind": "Status", "message": f"injected {fault.name}", "code": _CODES[fault]}
            return web.json_response(told, status=_CODES[fault], headers={"Retry-After": "1"})
        if fault is Fault.DROP:
            return self._closed(request)
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
            if fault is Fault.STALL:
                await asyncio.sleep(1.0)
            self.answered(seen, answer.status)
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
