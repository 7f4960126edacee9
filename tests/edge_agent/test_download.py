from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from edgewright_agent.download import Gateway
from edgewright_agent.refusal import Delay, Refusal
from edgewright_agent.store import Store
from edgewright_contract.digests import digest_of

DATA = bytes(range(256)) * 64


class Weak:
    """A gateway on a real socket that cuts each answer after `cut` bytes and may garble."""

    def __init__(self) -> None:
        self.cut, self.garble, self.status, self.requests = 10**9, False, 0, list[str]()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(request)
        start = 0
        for line in request.lower().splitlines():
            if line.startswith("range: bytes="):
                start = int(line.removeprefix("range: bytes=").rstrip("-"))
        body = DATA[start:]
        head = f"HTTP/1.1 {self.status or (206 if start else 200)} x\r\nContent-Length: {len(body)}\r\n"
        head += f"Content-Range: bytes {start}-{len(DATA) - 1}/{len(DATA)}\r\nLocation: /elsewhere\r\n\r\n"
        writer.write(head.encode() + (b"\0" * len(body) if self.garble else body)[: self.cut])
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@pytest.fixture
async def weak() -> AsyncIterator[tuple[Weak, Gateway]]:
    behavior = Weak()
    server = await asyncio.start_server(behavior.answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield behavior, Gateway(client, lambda: "secret", deadline=5, min_free_bytes=0)
    server.close()
    await server.wait_closed()


async def test_a_cut_download_goes_on_where_it_ended(weak: tuple[Weak, Gateway], tmp_path: Path) -> None:
    behavior, gateway = weak
    store, digest = Store(tmp_path), digest_of(DATA)
    behavior.cut = len(DATA) // 3
    for _ in range(3):
        with pytest.raises(Delay):
            await gateway.fetch(store, digest, len(DATA))
    behavior.cut = 10**9
    await gateway.fetch(store, digest, len(DATA))
    assert store.read(digest, len(DATA)) == DATA
    assert "bearer secret" in behavior.requests[0].lower()
    assert "range: bytes=" in behavior.requests[1].lower()


async def test_garbled_bytes_never_become_a_blob(weak: tuple[Weak, Gateway], tmp_path: Path) -> None:
    behavior, gateway = weak
    store, digest = Store(tmp_path), digest_of(DATA)
    behavior.garble = True
    with pytest.raises(Delay, match="another digest"):
        await gateway.fetch(store, digest, len(DATA))
    assert not store.path(digest).exists()
    behavior.garble = False
    await gateway.fetch(store, digest, len(DATA))
    assert store.has(digest, len(DATA))


async def test_more_bytes_than_signed_are_refused(weak: tuple[Weak, Gateway], tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="more than the 100 bytes"):
        await weak[1].fetch(Store(tmp_path), digest_of(DATA), 100)
    assert sum(path.stat().st_size for path in (tmp_path / "blobs").iterdir()) == 0


async def test_redirects_are_not_followed(weak: tuple[Weak, Gateway], tmp_path: Path) -> None:
    weak[0].status = 302
    with pytest.raises(Delay, match="answered 302"):
        await weak[1].fetch(Store(tmp_path), digest_of(DATA), len(DATA))
    assert len(weak[0].requests) == 1
