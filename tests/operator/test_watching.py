"""Lists in pages, watches from there, and what goes wrong on the way: drops, 410, stalls, missed deletions."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewright_operator import views
from edgewright_operator.api import ClusterError, Unavailable
from edgewright_operator.watching import Watched, newer


def item(name: str, version: int, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": name, "resourceVersion": str(version), "labels": labels}}


class Server:
    """Objects with a log of events, as the API server keeps them. `streams`: what each watch in turn does."""

    def __init__(self) -> None:
        self.version, self.objects, self.log = 100, dict[str, dict[str, Any]](), list[tuple[int, str, dict[str, Any]]]()
        self.compacted = 0
        self.reads: list[dict[str, str]] = []
        self.watches: list[str] = []
        self.fails: list[ClusterError] = []
        self.ends_after: list[int | None] = []
        self.moved = asyncio.Event()

    def put(self, name: str, **labels: str) -> None:
        kind = "MODIFIED" if name in self.objects else "ADDED"
        self._log(kind, item(name, self.version + 1, **labels))
        self.objects[name] = self.log[-1][2]

    def delete(self, name: str, *, silently: bool = False) -> None:
        found = self.objects.pop(name)
        self._log("DELETED", found | {"metadata": found["metadata"] | {"resourceVersion": str(self.version + 1)}})
        if silently:
            self.log.pop()

    def _log(self, kind: str, found: dict[str, Any]) -> None:
        self.version += 1
        self.log.append((self.version, kind, found))
        self.moved.set()

    async def read(self, path: str, *, accept: str, limit: str, **query: str) -> bytes:
        self.reads.append(query)
        if self.fails:
            raise self.fails.pop()
        names = sorted(self.objects)
        begin = int(query.get("continue", "0"))
        page = names[begin : begin + 2]
        more = {"continue": str(begin + 2)} if begin + 2 < len(names) else {}
        metadata = {"resourceVersion": str(self.version), **more}
        return json.dumps({"metadata": metadata, "items": [self.objects[name] for name in page]}).encode()

    @asynccontextmanager
    async def stream(self, path: str, query: dict[str, str], accept: str) -> AsyncIterator["Lines"]:
        self.watches.append(query["resourceVersion"])
        if self.fails:
            raise self.fails.pop()
        yield Lines(self, int(query["resourceVersion"]), self.ends_after.pop(0) if self.ends_after else None)


class Lines:
    """The body of one watch; ends badly after so many events where told to."""

    def __init__(self, server: Server, since: int, lives: int | None) -> None:
        self.server, self.since, self.lives = server, since, lives

    async def readline(self) -> bytes:
        if self.lives == 0:
            raise ConnectionResetError
        if self.since < self.server.compacted:
            problem = {"code": 410, "message": "too old"}
            return json.dumps({"type": "ERROR", "object": problem}).encode() + b"\n"
        while True:
            for version, kind, found in self.server.log:
                if version > self.since:
                    self.since = version
                    if self.lives is not None:
                        self.lives -= 1
                    return json.dumps({"type": kind, "object": found}).encode() + b"\n"
            self.server.moved.clear()
            await self.server.moved.wait()


def mirror(server: Server, **more: Any) -> tuple[Watched[views.NodeView], list[str]]:
    told: list[str] = []
    watched = Watched(server, "/nodes", views.node, lambda name, *_: told.append(name), **more)  # type: ignore[arg-type]
    return watched, told


async def settled(watched: Watched[views.NodeView], server: Server) -> None:
    """Until the mirror shows what the server has."""
    async with asyncio.timeout(5):
        while {name: view.version for name, view in watched.items.items()} != {  # noqa: ASYNC110
            name: found["metadata"]["resourceVersion"] for name, found in server.objects.items()
        }:
            await asyncio.sleep(0.01)


@pytest.fixture
async def running() -> Any:
    tasks: list[asyncio.Task[None]] = []

    def run(watched: Watched[views.NodeView]) -> asyncio.Task[None]:
        tasks.append(asyncio.create_task(watched.run()))
        return tasks[-1]

    yield run
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_all_pages_are_read_before_it_counts_as_seen(running: Any) -> None:
    server = Server()
    for name in "abcde":
        server.put(name)
    watched, told = mirror(server)
    running(watched)
    await watched.synced.wait()
    assert sorted(watched.items) == list("abcde")
    assert sorted(told) == list("abcde")
    assert [query.get("continue") for query in server.reads] == [None, "2", "4"]


async def test_it_goes_on_where_a_broken_watch_stopped(running: Any) -> None:
    server = Server()
    server.put("a")
    server.ends_after = [1, 0, None]
    watched, _ = mirror(server)
    running(watched)
    await watched.synced.wait()
    server.put("b")
    server.put("c")
    await settled(watched, server)
    assert server.watches[0] == "101"
    assert set(server.watches[1:]) == {"102"}
    assert len([query for query in server.reads if "continue" not in query]) == 1  # no list but the first


@pytest.mark.parametrize("how", ["event", "status"])
async def test_a_version_that_is_too_old_leads_to_a_new_list_that_also_shows_deletions(running: Any, how: str) -> None:
    server = Server()
    server.put("a")
    server.put("b")
    server.ends_after = [0]
    watched, told = mirror(server)
    task = running(watched)
    await watched.synced.wait()
    server.delete("a", silently=True)
    if how == "event":
        server.compacted = server.version
    else:
        server.fails = [ClusterError("gone", 410)]
    await settled(watched, server)
    assert told[-1] == "a"
    assert not task.done()


async def test_a_silent_watch_is_begun_anew(running: Any) -> None:
    server = Server()
    server.put("a")
    watched, _ = mirror(server, stall_seconds=0.05)
    running(watched)
    await watched.synced.wait()
    async with asyncio.timeout(20):
        while len(server.watches) < 2:  # noqa: ASYNC110 - nothing tells when it asks anew
            await asyncio.sleep(0.02)


async def test_what_no_event_told_is_seen_at_the_next_resync(running: Any) -> None:
    server = Server()
    server.put("a")
    watched, _ = mirror(server, resync_seconds=0.2, stall_seconds=0.05)
    running(watched)
    await watched.synced.wait()
    server.delete("a", silently=True)
    await settled(watched, server)


async def test_no_trouble_ends_it(running: Any) -> None:
    server = Server()
    server.put("a")
    server.fails = [Unavailable("busy", 429), ClusterError("forbidden", 403), Unavailable("no answer")]
    watched, _ = mirror(server)
    running(watched)
    await settled(watched, server)


async def test_an_answer_to_our_own_write_is_seen_at_once_and_an_old_event_does_not_undo_it() -> None:
    server = Server()
    watched, told = mirror(server)
    watched.items["a"] = views.NodeView("a", "5", "u", {})
    watched.put(views.NodeView("a", "7", "u", {"new": "label"}))
    assert watched._take(json.dumps({"type": "MODIFIED", "object": item("a", 6)}).encode()) == "6"
    assert watched.items["a"].labels == {"new": "label"}
    watched.put(views.NodeView("b", "8", "u", {}))  # deleted meanwhile: an answer brings nobody back
    assert "b" not in watched.items
    watched._take(json.dumps({"type": "DELETED", "object": item("a", 6)}).encode())
    assert "a" in watched.items  # that was an earlier one of this name
    assert told == ["a"]


@pytest.mark.parametrize(("one", "other"), [("10", "9"), ("2", "1"), ("1", "")])
def test_versions_compare_as_numbers(one: str, other: str) -> None:
    assert newer(one, other)
    assert not newer(other, one)
    assert not newer(one, one)


STEPS = st.lists(st.tuples(st.sampled_from(["put", "delete", "lose", "cut", "compact"]), st.sampled_from("abcd")))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whatever_happens_the_mirror_ends_as_the_server_is(steps: list[tuple[str, str]]) -> None:
    async def history() -> None:
        server = Server()
        server.ends_after = [1, 2, 0] * 20
        watched, _ = mirror(server, resync_seconds=0.05, stall_seconds=0.02)
        task = asyncio.create_task(watched.run())
        for what, name in steps:
            if what == "put":
                server.put(name)
            elif what in ("delete", "lose") and name in server.objects:
                server.delete(name, silently=what == "lose")
            elif what == "cut":
                server.fails = [Unavailable("cut")]
            elif what == "compact":
                server.compacted = server.version
            await asyncio.sleep(0)
        await settled(watched, server)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(history())
