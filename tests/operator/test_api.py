"""The one door to the API server: what refusals become, and that a closed fence lets nothing through."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from edgewright_operator.api import Api, ClusterError, Conflict, NotLeading, Unavailable
from edgewright_operator.pacing import Pacing


class Door:
    """A server that answers with `code`, and the client before it."""

    def __init__(self) -> None:
        self.code, self.headers, self.seen = 200, dict[str, str](), list[web.Request]()
        self.leads = True
        self.open = asyncio.Event()
        self.open.set()
        self.api: Api = None  # type: ignore[assignment]
        self.pacing = Pacing()

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append(request)
        await self.open.wait()
        return web.json_response({"message": "because"}, status=self.code, headers=self.headers)


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    found = Door()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", found.answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with ApiClient(Configuration(host=url, api_key={"BearerToken": "Bearer t"})) as client:
        found.api = Api(client, found.pacing, lambda: found.leads)
        yield found
    await runner.cleanup()


@pytest.mark.parametrize(
    ("code", "kind", "busy"),
    [
        (409, Conflict, False),
        (404, ClusterError, False),
        (422, ClusterError, False),
        (401, Unavailable, True),
        (429, Unavailable, True),
        (500, Unavailable, True),
        (503, Unavailable, True),
    ],
)
async def test_refusals(door: Door, code: int, kind: type[ClusterError], busy: bool) -> None:
    door.code = code
    with pytest.raises(ClusterError, match=f"PATCH /x: {code} because") as caught:
        await door.api.write("PATCH", "/x", {})
    assert type(caught.value) is kind
    assert caught.value.status == code
    assert door.pacing.troubled is busy


async def test_trouble_ends_with_the_first_good_answer(door: Door) -> None:
    door.code, door.headers = 429, {"Retry-After": "0"}
    with pytest.raises(Unavailable):
        await door.api.read("/x")
    door.code = 200
    await door.api.read("/x", labelSelector="a=b")
    assert door.pacing.troubled is False
    assert door.seen[-1].query["labelSelector"] == "a=b"
    assert door.seen[-1].headers["Authorization"] == "Bearer t"


async def test_a_closed_fence_lets_reads_through_and_no_write_but_the_lease(door: Door) -> None:
    door.leads = False
    with pytest.raises(NotLeading):
        await door.api.write("PATCH", "/x", {})
    await door.api.read("/x")
    await door.api.write("PUT", "/lease", {}, fenced=False)
    assert [request.method for request in door.seen] == ["GET", "PUT"]


async def test_the_fence_is_asked_after_the_wait_for_a_turn(door: Door) -> None:
    door.pacing.heard(busy=True)

    async def lost(self: Any) -> None:
        door.leads = False

    door.pacing = type("Slow", (), {"turn": lost, "heard": lambda *_, **__: None})()  # type: ignore[assignment]
    door.api._pacing = door.pacing
    with pytest.raises(NotLeading):
        await door.api.write("PATCH", "/x", {})
    assert door.seen == []


async def test_a_write_that_is_called_off_ends_once_it_is_answered_and_a_read_at_once(door: Door) -> None:
    door.open.clear()
    write = asyncio.create_task(door.api.write("PATCH", "/x", {}))
    read = asyncio.create_task(door.api.read("/x"))
    while len(door.seen) < 2:  # noqa: ASYNC110 - it asks a plain value
        await asyncio.sleep(0.01)
    write.cancel()
    read.cancel()
    await asyncio.wait((read,))
    await asyncio.sleep(0.05)
    assert not write.done()
    door.open.set()
    await asyncio.wait((write,))
    assert read.cancelled()
    assert write.cancelled()


async def test_nobody_there_is_unavailable() -> None:
    async with ApiClient(Configuration(host="http://127.0.0.1:1")) as client:
        api = Api(client, Pacing(), lambda: True)
        with pytest.raises(Unavailable, match="GET /x: ClientConnectorError"):
            await api.read("/x")
        with pytest.raises(Unavailable):
            async with api.stream("/x", {}, "application/json"):
                pass
