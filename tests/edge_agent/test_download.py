from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from edgewright_agent.download import Gateway
from edgewright_agent.refusal import Delay
from edgewright_agent.store import Store
from edgewright_contract.conditions import Reason
from edgewright_contract.digests import digest_of

DATA = bytes(range(256)) * 64
DIGEST = digest_of(DATA)


class Weak:
    """A gateway on a real socket that misbehaves as it is told."""

    def __init__(self) -> None:
        self.requests = list[str]()
        self.cut, self.garble, self.status = 10**9, False, 0
        self.reset = False
        """Whether it resets the connection instead of closing it."""
        self.data, self.tail, self.pace = DATA, b"", 0.0
        self.stated: int | None = None
        """Content-Length, where it lies."""
        self.range_from: int | None = None
        """Content-Range, where it lies."""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(request)
        start = 0
        for line in request.lower().splitlines():
            if line.startswith("range: bytes="):
                start = int(line.removeprefix("range: bytes=").rstrip("-"))
        body = self.data[start:]
        length = len(body) if self.stated is None else self.stated
        first = start if self.range_from is None else self.range_from
        head = f"HTTP/1.1 {self.status or (206 if start else 200)} x\r\n"
        head += f"Content-Length: {length}\r\n" if length >= 0 else "Connection: close\r\n"
        head += f"Content-Range: bytes {first}-{len(self.data) - 1}/{len(self.data)}\r\nLocation: /elsewhere\r\n\r\n"
        writer.write(head.encode() + (b"\0" * len(body) if self.garble else body)[: self.cut])
        try:
            while self.tail:
                writer.write(self.tail)
                await writer.drain()
                await asyncio.sleep(self.pace)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            if self.reset:
                nothing_kept = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, nothing_kept)
            writer.close()


@pytest.fixture
async def weak() -> AsyncIterator[tuple[Weak, Gateway]]:
    behavior = Weak()
    server = await asyncio.start_server(behavior.answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield behavior, Gateway(client, lambda: "secret", deadline=5, min_free_bytes=0, grace_seconds=0.3)
    server.close()
    await server.wait_closed()


def _bytes_kept(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "blobs").iterdir())


@pytest.mark.parametrize("reset", [False, True])
async def test_a_cut_download_goes_on_where_it_ended(weak: tuple[Weak, Gateway], tmp_path: Path, reset: bool) -> None:
    behavior, gateway = weak
    behavior.reset = reset
    store = Store(tmp_path)
    behavior.cut = len(DATA) // 3
    for _ in range(3):
        with pytest.raises(Delay) as cut:
            await gateway.fetch(store, DIGEST, len(DATA))
        assert cut.value.reason is Reason.DOWNLOAD_FAILED
    behavior.cut, behavior.reset = 10**9, False
    await gateway.fetch(store, DIGEST, len(DATA))
    assert store.read(DIGEST, len(DATA)) == DATA
    assert "bearer secret" in behavior.requests[0].lower()
    assert "range: bytes=" in behavior.requests[1].lower()


async def test_garbled_bytes_never_become_a_blob(weak: tuple[Weak, Gateway], tmp_path: Path) -> None:
    behavior, gateway = weak
    store = Store(tmp_path)
    behavior.garble = True
    with pytest.raises(Delay, match="another digest"):
        await gateway.fetch(store, DIGEST, len(DATA))
    assert not store.path(DIGEST).exists()
    behavior.garble = False
    await gateway.fetch(store, DIGEST, len(DATA))
    assert store.has(DIGEST, len(DATA))


@pytest.mark.parametrize("stated", [None, -1])
async def test_more_bytes_than_signed_are_the_gateways_fault_and_asked_for_again(
    weak: tuple[Weak, Gateway], tmp_path: Path, stated: int | None
) -> None:
    behavior, gateway = weak
    behavior.data, behavior.stated = DATA + b"more", stated
    with pytest.raises(Delay, match="more than the"):
        await gateway.fetch(Store(tmp_path), DIGEST, len(DATA))
    assert _bytes_kept(tmp_path) == 0
    behavior.data = DATA
    await gateway.fetch(Store(tmp_path), DIGEST, len(DATA))


async def test_an_endless_answer_stops_at_the_signed_size(weak: tuple[Weak, Gateway], tmp_path: Path) -> None:
    behavior, gateway = weak
    behavior.stated, behavior.tail = -1, b"x" * 65536
    with pytest.raises(Delay, match="more than the"):
        await gateway.fetch(Store(tmp_path), DIGEST, len(DATA))


async def test_a_trickle_is_given_up(weak: tuple[Weak, Gateway], tmp_path: Path) -> None:
    behavior, gateway = weak
    behavior.data, behavior.stated, behavior.tail, behavior.pace = b"", -1, b"x", 0.05
    with pytest.raises(Delay, match="too slow"):
        await gateway.fetch(Store(tmp_path), DIGEST, len(DATA))


async def test_an_answer_that_never_ends_meets_the_deadline(weak: tuple[Weak, Gateway], tmp_path: Path) -> None:
    behavior, gateway = weak
    behavior.cut, behavior.stated = 10, len(DATA)
    behavior.tail, behavior.pace = b"\0", 60
    gateway._deadline = 0.3
    with pytest.raises(Delay, match="not here after"):
        await gateway.fetch(Store(tmp_path), DIGEST, len(DATA))


@pytest.mark.parametrize("stated", [100, len(DATA) + 100])
async def test_a_wrong_content_length_costs_an_attempt_only(
    weak: tuple[Weak, Gateway], tmp_path: Path, stated: int
) -> None:
    behavior, gateway = weak
    behavior.stated = stated
    with pytest.raises(Delay) as caught:
        await gateway.fetch(Store(tmp_path), DIGEST, len(DATA))
    assert caught.value.reason is Reason.DOWNLOAD_FAILED
    behavior.stated = None
    await gateway.fetch(Store(tmp_path), DIGEST, len(DATA))


async def test_resuming_onto_a_changed_object_begins_anew(weak: tuple[Weak, Gateway], tmp_path: Path) -> None:
    behavior, gateway = weak
    store = Store(tmp_path)
    behavior.data, behavior.cut = bytes(len(DATA)), 5000
    with pytest.raises(Delay):
        await gateway.fetch(store, DIGEST, len(DATA))
    behavior.data, behavior.cut = DATA, 10**9
    with pytest.raises(Delay, match="another digest"):
        await gateway.fetch(store, DIGEST, len(DATA))
    await gateway.fetch(store, DIGEST, len(DATA))
    assert store.read(DIGEST, len(DATA)) == DATA


async def test_another_range_than_asked_for_begins_anew(weak: tuple[Weak, Gateway], tmp_path: Path) -> None:
    behavior, gateway = weak
    behavior.cut = 5000
    with pytest.raises(Delay):
        await gateway.fetch(Store(tmp_path), DIGEST, len(DATA))
    behavior.cut, behavior.range_from = 10**9, 17
    with pytest.raises(Delay, match="another part"):
        await gateway.fetch(Store(tmp_path), DIGEST, len(DATA))
    assert _bytes_kept(tmp_path) == 0


async def test_redirects_are_not_followed(weak: tuple[Weak, Gateway], tmp_path: Path) -> None:
    weak[0].status = 302
    with pytest.raises(Delay, match="answered 302"):
        await weak[1].fetch(Store(tmp_path), DIGEST, len(DATA))
    assert len(weak[0].requests) == 1


async def test_a_token_that_the_gateway_does_not_know_says_what_to_do(
    weak: tuple[Weak, Gateway], tmp_path: Path
) -> None:
    weak[0].status = 401
    with pytest.raises(Delay) as caught:
        await weak[1].fetch(Store(tmp_path), DIGEST, len(DATA))
    assert caught.value.reason is Reason.NEEDS_JOIN
