from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from edgewright_agent import kube as kubes
from edgewright_agent.kube import Kube, KubeError


class ApiServer:
    """Answers each watch with the next script: lines, and then what happens to the connection."""

    def __init__(self) -> None:
        self.scripts: list[tuple[int, list[dict[str, Any]], float]] = []
        self.asked: list[httpx2.Request] = []

    async def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        if request.method != "GET":
            status, lines, _ = self.scripts.pop(0)
            return httpx2.Response(status, json=lines[0] if lines else {})
        status, lines, pause = self.scripts.pop(0) if self.scripts else (200, [], 3600.0)
        return httpx2.Response(status, content=_lines(lines, pause))


async def _lines(lines: list[dict[str, Any]], pause: float) -> AsyncIterator[bytes]:
    for line in lines:
        yield json.dumps(line).encode() + b"\n"
    await asyncio.sleep(pause)


def _event(version: int, kind: str = "MODIFIED") -> dict[str, Any]:
    return {"type": kind, "object": {"metadata": {"resourceVersion": str(version)}, "spec": {"trust": str(version)}}}


BOOKMARK = {
    "type": "BOOKMARK",
    "object": {"metadata": {"resourceVersion": "9", "annotations": {"k8s.io/initial-events-end": "true"}}},
}
GONE = {"type": "ERROR", "object": {"code": 410, "message": "too old"}}


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[ApiServer, Kube, list[str]]]:
    monkeypatch.setattr(kubes, "MAX_BACKOFF_SECONDS", 0.01)
    api, tokens = ApiServer(), ["first"]
    async with httpx2.AsyncClient(base_url="http://api", transport=httpx2.MockTransport(api.answer)) as client:
        yield api, Kube(client, lambda: tokens[-1], "node-1", rng=random.Random(1), stall_seconds=0.2), tokens


async def _seen(kube: Kube, count: int) -> tuple[list[Any], list[str]]:
    problems: list[str] = []
    events = kube.watch(problems.append)
    seen = [await asyncio.wait_for(anext(events), 10) for _ in range(count)]
    await events.aclose()
    return seen, problems


async def test_one_watch_without_a_list_and_each_token_fresh(served: tuple[ApiServer, Kube, list[str]]) -> None:
    api, kube, tokens = served
    api.scripts = [(200, [_event(1, "ADDED"), BOOKMARK], 0), (200, [_event(12)], 0)]
    events = kube.watch(print)
    await anext(events)
    tokens.append("second")
    await asyncio.wait_for(anext(events), 10)
    await events.aclose()
    first, second = api.asked
    assert first.url.params["sendInitialEvents"] == "true"
    assert second.url.params["resourceVersion"] == "9", "goes on where the bookmark says"
    assert (first.headers["authorization"], second.headers["authorization"]) == ("Bearer first", "Bearer second")


@pytest.mark.parametrize("gone", [(410, [], 0.0), (200, [GONE], 0.0)])
async def test_a_version_that_is_too_old_begins_anew(served: tuple[ApiServer, Kube, list[str]], gone: Any) -> None:
    api, kube, _ = served
    api.scripts = [(200, [_event(1, "ADDED"), BOOKMARK], 0), gone, (200, [_event(50, "ADDED")], 0)]
    seen, problems = await _seen(kube, 2)
    assert seen[1].edge_node["spec"]["trust"] == "50"
    assert problems == [], "an old version is no fault"
    assert "sendInitialEvents" in api.asked[2].url.params


async def test_other_errors_are_told_and_survived(served: tuple[ApiServer, Kube, list[str]]) -> None:
    api, kube, _ = served
    broken = {"type": "ERROR", "object": {"code": 500, "message": "etcd"}}
    api.scripts = [(503, [{"message": "starting"}], 0), (200, [broken], 0), (200, [{"nonsense": 1}], 0), (401, [], 0)]
    api.scripts += [(200, [_event(3, "ADDED")], 0)]
    seen, problems = await _seen(kube, 1)
    assert seen[0].edge_node["spec"]["trust"] == "3"
    assert len(problems) == 4


async def test_a_node_without_its_object_is_told(served: tuple[ApiServer, Kube, list[str]]) -> None:
    api, kube, _ = served
    api.scripts = [(200, [BOOKMARK, _event(10, "ADDED"), _event(11, "DELETED")], 0)]
    seen, _ = await _seen(kube, 3)
    assert [one.edge_node is None for one in seen] == [True, False, True]


async def test_a_lease_is_made_where_there_is_none(served: tuple[ApiServer, Kube, list[str]]) -> None:
    api, kube, _ = served
    api.scripts = [(404, [{"message": "not found"}], 0), (201, [], 0)]
    await kube.renew_lease(datetime(2026, 1, 1, tzinfo=UTC))
    assert [request.method for request in api.asked] == ["PATCH", "POST"]
    api.scripts = [(403, [{"message": "forbidden"}], 0)]
    with pytest.raises(KubeError, match="403 forbidden"):
        await kube.renew_lease(datetime(2026, 1, 1, tzinfo=UTC))


async def test_a_silent_watch_is_given_up_on_a_real_socket() -> None:
    connections, handlers = 0, []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        handlers.append(asyncio.current_task())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        line = json.dumps(_event(connections, "ADDED")).encode() + b"\n"
        writer.write(b"%x\r\n%s\r\n" % (len(line), line))
        await writer.drain()
        await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        kube = Kube(client, lambda: "t", "node-1", rng=random.Random(1), stall_seconds=0.2)
        seen, problems = await _seen(kube, 2)
    await asyncio.gather(*handlers)
    server.close()
    await server.wait_closed()
    assert [one.edge_node["spec"]["trust"] for one in seen] == ["1", "2"]
    assert problems
