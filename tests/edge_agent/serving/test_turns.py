"""How much is done in one turn of the event loop, counted in bytes, values and turns; bench/stall.py has the time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from edgewright_agent.serving import protocol_v2, push
from edgewright_agent.serving.bounded import PIECE
from edgewright_agent.serving.busy_poll import BusyPoll
from edgewright_agent.serving.door import LATE_SECONDS, Door
from edgewright_agent.serving.hot_route import protocol_for
from edgewright_agent.serving.inference import Inference, Limits
from edgewright_agent.serving.metrics import Metrics
from edgewright_agent.serving.one_by_one import OneByOne
from edgewright_agent.serving.protocol_v2 import LONG_TEXT, MAX_NUMBERS, BadRequest
from edgewright_agent.serving.slots import Slots

WINDOW = 64
GET = b"GET /healthz HTTP/1.1\r\nhost: n\r\n\r\n"


class Wire(asyncio.Transport):
    """Keeps what is written, and whether it is read."""

    def __init__(self) -> None:
        super().__init__({"peername": None, "sockname": None})
        self.written, self.reads = bytearray(), True

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


class Counting:
    """A parser that says how much it was given."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser
        self.fed: list[int] = []

    def feed_data(self, data: bytes) -> None:
        self.fed.append(len(data))
        self._parser.feed_data(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)


class Side:
    """A connection's protocol without a network, behind it an application that answers everything."""

    def __init__(self) -> None:
        config = uvicorn.Config(self._app, interface="asgi3", ws="none", lifespan="off", log_config=None)
        config.load()
        self.door = Door(Inference(Slots(Metrics()), Limits()), BusyPoll(0.0))
        self.protocol, self.wire, self.bodies = protocol_for(self.door)(config, ServerState(), {}), Wire(), b""
        self.protocol.connection_made(self.wire)
        self.parser = self.protocol.parser = Counting(self.protocol.parser)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            self.bodies += message.get("body", b"")
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def until_answered(self, count: int) -> None:
        for _ in range(10 * count + 100):
            await asyncio.sleep(0)
        assert self.wire.written.count(b"HTTP/1.1 200") == count


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every turn has lasted too long as soon as it has begun."""
    monkeypatch.setattr("edgewright_agent.serving.door.Turn.lasted", lambda _: LATE_SECONDS + 1)


async def test_a_body_in_chunks_of_a_byte_is_parsed_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    side, lasted = Side(), [0.0]
    monkeypatch.setattr(side.door.turn, "lasted", lambda: lasted[0])
    side.protocol.data_received(b"POST /x HTTP/1.1\r\nhost: n\r\ntransfer-encoding: chunked\r\n\r\n")
    side.parser.fed.clear()
    lasted[0] = LATE_SECONDS + 1
    chunks = b"1\r\n5\r\n" * 5000
    side.door.is_late = iter([False, *[True] * 100]).__next__  # type: ignore[method-assign]
    side.protocol.data_received(chunks)
    assert side.parser.fed == [PIECE]
    assert not side.wire.reads
    side.door.is_late = lambda: False  # type: ignore[method-assign]
    await asyncio.sleep(0)
    assert max(side.parser.fed) == PIECE
    assert sum(side.parser.fed) == len(chunks)
    assert side.wire.reads
    side.protocol.data_received(b"0\r\n\r\n")
    await side.until_answered(1)
    assert side.bodies == b"5" * 5000


async def test_in_a_late_turn_nothing_is_parsed_and_reading_stops(late: None) -> None:
    side = Side()
    side.protocol.data_received(GET)
    assert side.parser.fed == []
    assert not side.wire.reads


async def test_a_body_with_a_stated_length_is_parsed_in_one_go() -> None:
    side, body = Side(), b" " * 200_000
    side.protocol.data_received(b"POST /x HTTP/1.1\r\nhost: n\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    assert len(side.parser.fed) == 2
    await side.until_answered(1)
    assert side.bodies == body


async def test_requests_that_do_not_wait_for_answers_are_parsed_as_they_are_answered() -> None:
    side, count = Side(), 500
    side.protocol.data_received(GET * count)
    assert sum(side.parser.fed) == PIECE
    await side.until_answered(count)
    assert sum(side.parser.fed) == count * len(GET)
    assert side.wire.reads


async def test_a_turn_that_was_late_is_over_in_the_next() -> None:
    door = Side().door
    assert not door.is_late()
    door.turn._began -= 2 * LATE_SECONDS
    assert door.is_late()
    await asyncio.sleep(0)
    assert not door.turn.open


async def test_one_piece_in_each_turn_however_many_ask() -> None:
    one_by_one, turn, done = OneByOne(), 0, []

    async def work() -> None:
        async with one_by_one:
            done.append(turn)

    tasks = [asyncio.create_task(work()) for _ in range(5)]
    while len(done) < len(tasks):
        await asyncio.sleep(0)
        turn += 1
    assert len(set(done)) == len(tasks)
    with pytest.raises(ZeroDivisionError):
        async with one_by_one:
            raise ZeroDivisionError
    async with asyncio.timeout(5), one_by_one:
        pass


def _tensor(data: bytes) -> bytes:
    head = b'{"inputs":[{"name":"watts","datatype":"FP32","shape":[1,1,%d],"data":' % WINDOW
    return head + data + b"}]}"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b'{"inputs":[' + b",".join([b"5"] * 500_000) + b"]}", "numbers"),
        (b'{"inputs":' + b"[" * 1_000_000, "lists"),
        (_tensor(b"[" + b",".join([b"[" * 30 + b"5" + b"]" * 30] * 16_000) + b"]"), "lists"),
        (_tensor(b"[" + b",".join([b"[]"] * 100_000) + b"]"), "lists"),
        (b'{"inputs":[' + b",".join([b'{"name":"a"}'] * 26_000) + b"]}", "objects"),
    ],
    ids=["numbers", "brackets", "deep lists", "empty lists", "objects"],
)
def test_what_no_request_can_hold_is_refused_before_it_is_made_into_objects(
    monkeypatch: pytest.MonkeyPatch, body: bytes, sentence: str
) -> None:
    monkeypatch.setattr(protocol_v2, "_decoder", None)
    monkeypatch.setattr(protocol_v2, "_nested", None)
    with pytest.raises(BadRequest, match=f"more than .* {sentence}|At most .* {sentence}"):
        protocol_v2.parse(body, None, WINDOW)


@pytest.mark.parametrize("nested", [True, False])
def test_as_many_windows_as_are_read_as_json_may_come_in_either_form(nested: bool) -> None:
    rows, window = MAX_NUMBERS // WINDOW, [5] * WINDOW
    data = [[window]] * rows if nested else window * rows
    item = {"name": "watts", "datatype": "FP32", "shape": [rows, 1, WINDOW], "data": data}
    body = json.dumps({"id": "[{," * 80, "inputs": [item]}).encode()
    assert protocol_v2.parse(body, None, WINDOW).watts.shape == (rows, 1, WINDOW)


def test_a_long_text_is_not_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol_v2, "parse", None)
    inference: Any = Inference(Slots(Metrics()), Limits())
    text = b" " * (LONG_TEXT + 1)
    for header in (None, str(len(text)), "x"):
        assert inference.at_once(None, text, header) is None
    assert not protocol_v2.is_long_text(text[:-1], None)
    assert not protocol_v2.is_long_text(text * 10, "100")


def test_readings_are_looked_at_in_pieces() -> None:
    pushed = push.parse(b'{"t":9,"watts":5}\n' * (push.PIECE + 1) + b'{"t":9,"watts":1e9}', lines=True)
    push.check(pushed, 0, 100.0)
    with pytest.raises(push.BadReadings, match=rf"readings\[{push.PIECE + 1}\]"):
        push.check(pushed, push.PIECE, 100.0)
