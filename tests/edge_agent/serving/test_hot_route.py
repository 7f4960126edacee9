"""The hot route against the plain one, byte for byte, and the bounds that stand in front of both."""

import asyncio
import json
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from edgewright_agent.serving.__main__ import _http_protocol
from edgewright_agent.serving.busy_poll import BusyPoll
from edgewright_agent.serving.door import Door
from edgewright_agent.serving.hot_route import protocol_for
from edgewright_agent.serving.inference import Inference, Limits
from edgewright_agent.serving.metrics import Metrics
from edgewright_agent.serving.shortcut import Shortcut
from edgewright_agent.serving.slots import Slots
from edgewright_agent.serving.uvicorn_fit import misfit

WINDOW = 64
HOT, PLAIN = b"/v2/models/nilm/infer", b"/v2/models/%6eilm/infer"  # the hot route matches the path as it is sent


def tensor(**changes) -> dict:
    return {"name": "watts", "datatype": "FP32", "shape": [1, 1, WINDOW], "data": [1.5] * WINDOW} | changes


def post(path: bytes, body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST %s HTTP/1.1" % path, b"host: node", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


def binary(rows: int, *, wanted: bool) -> tuple[bytes, bytes]:
    data = np.full((rows, 1, WINDOW), 2000, "<f4").tobytes()
    head = {"inputs": [tensor(shape=[rows, 1, WINDOW], parameters={"binary_data_size": len(data)})]}
    del head["inputs"][0]["data"]
    head["parameters"] = {"binary_data_output": wanted}
    text = json.dumps(head).encode()
    return text + data, b"inference-header-content-length: %d" % len(text)


def plain_json(**changes) -> bytes:
    return json.dumps({"inputs": [tensor(**changes)]}).encode()


CASES = {
    "json": (plain_json(),),
    "id": (json.dumps({"id": "ä7", "inputs": [tensor()]}).encode(),),
    "nested": (plain_json(data=[[[1.0] * WINDOW]]),),
    "integers": (plain_json(data=[1] * WINDOW),),
    "binary": binary(1, wanted=True),
    "binary in": binary(3, wanted=False),
    "many rows": binary(900, wanted=True),
    "empty": (b"",),
    "not json": (b"{",),
    "rank": (plain_json(shape=[WINDOW]),),
    "booleans": (plain_json(data=[True] * WINDOW),),
    "null": (plain_json(data=[None] * WINDOW),),
    "beyond float32": (plain_json(data=[1e39] * WINDOW),),
    "deep": (b"[" * 50_000,),
    "header length": (plain_json(), b"inference-header-content-length: 9999"),
    "header twice": (binary(1, wanted=True)[0], binary(1, wanted=True)[1], b"inference-header-content-length: 1"),
    "too long": (b" " * (1024 * 1024 + 1),),
    "compressed": (plain_json(), b"content-encoding: gzip"),
    "upgrade": (plain_json(), b"connection: upgrade", b"upgrade: h2c"),
}


def dated(answer: bytes) -> bytes:
    return re.sub(rb"date: [^\r]*\r\n", b"date: \r\n", answer)


# the parser reads nothing after a request that asks for another protocol, so such a one closes
@pytest.mark.parametrize(
    ("name", "close"),
    [(name, end) for name in CASES for end in (True, False) if end or b"upgrade" not in b"".join(CASES[name][1:])],
)
def test_both_ways_answer_byte_for_byte_alike(shared, name, close):
    body, *headers = CASES[name]
    end = b"GET /v2/health/live HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n"
    answers = []
    for path in (HOT, PLAIN):
        request = post(path, body, *headers, *([b"connection: close"] if close else []))
        answers.append(dated(shared.exchange(request if close else request + end)))
    assert answers[0] == answers[1]
    assert re.match(rb"HTTP/1.1 (200|400|413|415) ", answers[0])


@pytest.mark.parametrize("path", [HOT, PLAIN])
def test_chunked_bodies_are_read_and_bounded(shared, path):
    def chunked(parts: list[bytes]) -> bytes:
        head = b"POST %s HTTP/1.1\r\nhost: node\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n" % path
        return head + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"

    body = plain_json()
    assert b" 200 OK" in shared.exchange(chunked([body[:10], body[10:11], body[11:]]))
    assert b" 413 " in shared.exchange(chunked([b" " * 65_536] * 40))


def test_pipelined_answers_come_in_the_order_of_their_requests(shared):
    requests, expected = [], []
    for index in range(40):
        path = (HOT, PLAIN, HOT, b"/v2/models/nilm/versions/1/infer")[index % 4]
        rows = 400 if index % 7 == 3 else 1  # long ones take the plain way and must not be overtaken
        body = json.dumps({"id": f"q{index}", "inputs": [tensor(shape=[rows, 1, WINDOW], data=[0.0] * WINDOW * rows)]})
        requests.append(post(path, body.encode(), *([b"connection: close"] if index == 39 else [])))
        expected.append(f"q{index}")
    answer = shared.exchange(b"".join(requests))
    assert re.findall(r'"id":"(q\d+)"', answer.decode()) == expected
    assert answer.count(b"HTTP/1.1 200 OK") == 40


@pytest.fixture
def sleeping(shared) -> Iterator[Callable[[], None]]:
    """Stop the server's process; what the test sends until it calls the fixture is then read in one piece."""
    shared.process.send_signal(signal.SIGSTOP)
    yield lambda: shared.process.send_signal(signal.SIGCONT)
    shared.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("rows", [1, 300])
@pytest.mark.parametrize("cut", [30, 150])
def test_a_head_that_ends_in_a_long_piece_is_not_taken_for_a_long_head(shared, sleeping, rows, cut):
    body, header = binary(rows, wanted=False)
    request = post(HOT, body, header)
    count = 1 + 90_000 // len(request)  # beyond the largest head
    whole = request * count + post(HOT, body, header, b"connection: close")
    with socket.create_connection(("127.0.0.1", shared.port), timeout=20) as client:
        client.sendall(whole[:cut])
        shared.process.send_signal(signal.SIGCONT)
        time.sleep(0.1)  # the server has begun to read a head
        shared.process.send_signal(signal.SIGSTOP)
        end = len(request) * count + cut
        client.sendall(whole[cut:end])
        sleeping()
        time.sleep(0.1)
        client.sendall(whole[end:])
        answer = b"".join(iter(lambda: client.recv(1 << 20), b""))
    assert answer.count(b"HTTP/1.1 200 OK") == answer.count(b"HTTP/1.1") == count + 1


class Wire(asyncio.Transport):
    """A transport that takes what is written until it is cut, and then raises, as uvloop's does."""

    def __init__(self) -> None:
        super().__init__({"peername": None, "sockname": None})
        self.cut = False

    def write(self, data: bytes) -> None:
        if self.cut:
            raise RuntimeError("the handler is closed")

    def is_closing(self) -> bool:
        return self.cut

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


async def test_a_client_that_leaves_its_pipelined_requests_behind_is_no_error(caplog):
    told, left = [], asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        await left.wait()
        told.append((await receive())["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None)
    config.load()
    door, state = Door(Inference(Slots(Metrics()), Limits()), BusyPoll(0.0)), ServerState()
    protocol, wire = protocol_for(door)(config, state, {}), Wire()
    protocol.connection_made(wire)
    protocol.data_received(b"GET /slow HTTP/1.1\r\nhost: node\r\n\r\n" * 3)
    await asyncio.sleep(0)
    wire.cut = True
    protocol.connection_lost(ConnectionResetError())
    left.set()
    await asyncio.wait_for(asyncio.gather(*state.tasks), 5)
    assert told == ["http.disconnect"]  # the two behind it never begin
    assert not caplog.records


def test_a_client_that_reads_nothing_is_held_back_and_loses_no_answer(shared):
    body, header = binary(1, wanted=True)
    size = len(shared.exchange(post(HOT, body, header, b"connection: close"))) - len(b"connection: close\r\n")
    with socket.create_connection(("127.0.0.1", shared.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 131_072)
        client.settimeout(0.5)
        request, sent, began = post(HOT, body, header), 0, time.monotonic()
        try:
            for _ in range(100_000):
                client.sendall(request)
                sent += 1
        except TimeoutError:
            pass
        except ConnectionResetError:  # as it must, to one that reads nothing for so long
            assert time.monotonic() - began > 5
            return
        assert 0 < sent < 100_000  # the server stopped reading
        before = shared.rss()
        client.settimeout(5)
        got = 0
        while got < sent * size:
            part = client.recv(1 << 20)
            assert part
            got += len(part)
        assert got == sent * size
        assert shared.rss() - before < 32 * 1024 * 1024
    assert shared.http.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("start", "drip"),
    [
        (b"POST /v2/models/nilm/infer HTTP/1.1\r\ncontent-length: 100\r\n\r\n", b" "),
        (b"POST /v2/models/nilm/infer HTTP/1.1\r\n", b"a: b\r\n"),
        (b"GET /healthz HTTP/1.1\r\n", b"a: b\r\n"),
        (b"POST /v1/readings HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n", b" "),
    ],
)
def test_a_slow_request_ends_at_its_deadline(start_server, write_release, tmp_path, start, drip):
    running = start_server("--body-seconds", "1")
    running.go_live(write_release(tmp_path / "one", 1, 2.0))
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.sendall(start)
        client.settimeout(0.2)
        began, answer = time.monotonic(), b""
        while time.monotonic() - began < 10 and not answer:
            try:
                client.sendall(drip)
                answer = client.recv(1000)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\n" + b"a: b\r\n" * 200,
        b"GET /healthz HTTP/1.1\r\nx: " + b"y" * 100_000,
        b"GET /" + b"y" * 100_000 + b" HTTP/1.1\r\n",
        b"POST /v2/models/nilm/infer HTTP/1.1\r\nx: " + b"y" * 900_000,
        b"POST /v2/models/nilm/infer HTTP/1.1\r\n" + b"h: v\r\n" * 100_000,
    ],
)
def test_a_head_that_is_too_large_is_refused_in_bounded_memory(shared, head):
    before = shared.rss()
    with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as client:
        for start in range(0, len(head), 16_384):
            client.sendall(head[start : start + 16_384])
        if len(head) < 8192:
            client.sendall(b"\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 431 ")
    assert shared.rss() - before < 16 * 1024 * 1024


@pytest.mark.parametrize(
    "request_line",
    [b"\x00\x01\x02\x03", b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
    + [b"POST /v2/models/nilm/infer HTTP/1.1\r\ncontent-length: %s\r\n\r\n" % (b"9" * n) for n in (25, 9000)]
    + [b"POST /v2/models/nilm/infer HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"],
)
def test_what_is_not_http_is_refused(shared, request_line):
    assert shared.exchange(request_line).startswith(b"HTTP/1.1 400 ")


def test_beyond_the_bound_connections_are_refused_and_idle_ones_make_room(start_server):
    running = start_server("--max-connections", "20")
    idle = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(20)]
    time.sleep(1.3)  # now they count as idle
    assert running.http.get("/healthz").status_code == 200
    busy = []
    for _ in range(25):
        client = socket.create_connection(("127.0.0.1", running.port), timeout=5)
        client.sendall(b"GET /healthz HTTP/1.1\r\n")
        busy.append(client)
    refused = 0
    for client in busy:
        client.settimeout(0.2)
        try:
            answer = client.recv(1000)
        except TimeoutError:
            continue
        refused += answer.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in answer
    assert refused >= 4
    for client in (*idle, *busy):
        client.close()


def test_shutdown_answers_what_is_on_its_way(served):
    body = plain_json()
    request = post(HOT, body)
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client, client.makefile("rb") as answers:
        client.sendall(request)
        assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
        served.process.terminate()
        time.sleep(0.3)
        client.sendall(request[:80])
        time.sleep(0.3)
        client.sendall(request[80:])
        rest = answers.read()
    assert rest.count(b"HTTP/1.1 200 OK") == 1
    assert b"connection: close" in rest
    assert served.process.wait(10) == -signal.SIGTERM  # uvicorn ends by the signal that it was sent


def test_an_unknown_uvicorn_gets_the_plain_way(monkeypatch, caplog):
    assert misfit() is None

    class Changed:
        def __init__(self) -> None:
            self.url = b""

    assert "on_headers_complete" in misfit(Changed)
    assert "cycle" in misfit(Changed)
    assert issubclass(_http_protocol(SimpleNamespace()), HttpToolsProtocol)
    monkeypatch.setattr("edgewright_agent.serving.__main__.misfit", lambda: "it has changed")
    assert _http_protocol(SimpleNamespace()) == "httptools"
    assert "it has changed" in caplog.text


def test_a_repeated_head_takes_the_shortcut_and_changes_no_byte(shared):
    def numbers(watts: float) -> tuple[bytes, bytes]:
        body, header = binary(1, wanted=True)
        return body[:-256] + np.full(WINDOW, watts, "<f4").tobytes(), header

    cases = [
        (plain_json(),),
        (plain_json(data=[2.25] * WINDOW),),
        (plain_json(data=[2] * WINDOW),),  # another length
        (b"{",),
        (plain_json(shape=[WINDOW]),),
        (plain_json(),),
        numbers(0),
        numbers(2000),
        numbers(float("nan")),
        numbers(2000),
        (json.dumps({"id": "b", "inputs": [tensor()]}).encode(),),
        (b" " * (1024 * 1024 + 1),),
    ]
    answers: dict[bytes, list[bytes]] = {HOT: [], PLAIN: []}
    for path, got in answers.items():
        with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as client:
            for body, *headers in cases:
                client.sendall(post(path, body, *headers))
                answer = b""
                while not (found := re.search(rb"\ncontent-length: (\d+)\r\n.*?\r\n\r\n", answer, re.S)) or len(
                    answer
                ) < found.end() + int(found[1]):
                    part = client.recv(65_536)
                    assert part
                    answer += part
                got.append(dated(answer))
    assert answers[HOT] == answers[PLAIN]


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v2/models/nilm/infer HTTP/1.1\r\ncontent-length: 5\r\nx: content-length: 5\r\n\r\n",
        b"POST /v2/models/nilm/infer HTTP/1.1\r\nx: 1\r\n\r\n",
        b"\r\nPOST /v2/models/nilm/infer HTTP/1.1\r\ncontent-length: 5\r\n\r\n",
    ],
)
def test_nothing_is_learned_from_an_ambiguous_head(head):
    shortcut = Shortcut(Inference(Slots(Metrics()), Limits()))
    shortcut.learn(head + b"12345", 5, HOT, None)
    assert shortcut._head is None


def test_a_remembered_head_covers_whole_requests_only():
    head = b"POST /v2/models/nilm/infer HTTP/1.1\r\nhost: n\r\nContent-Length: 5\r\naccept: */*\r\n\r\n"
    shortcut = Shortcut(Inference(Slots(Metrics()), Limits()))
    shortcut.learn(head + b"12345", 5, HOT, None)
    for good in (head + b"54321", head.replace(b" 5\r", b" 0\r"), head.replace(b" 5\r", b" 12\r") + b"x" * 12):
        assert shortcut._head.body_start(good) == good.index(b"\r\n\r\n") + 4
    for bad in (head, head + b"1234", head + b"123456", head[:-1], b"", head.replace(b" 5\r", b" -5\r") + b"12345"):
        assert shortcut._head.body_start(bad) == 0
    for change in ((b" 5\r", b" 5 \r"), (b"accept", b"expect"), (b"host: n", b"host: m"), (b" 5\r", b" +5\r")):
        assert shortcut._head.body_start(head.replace(*change) + b"12345") == 0


async def test_time_in_which_the_server_itself_does_not_read_counts_against_nobody():
    config = uvicorn.Config(None, ws="none", lifespan="off", log_config=None)
    config.load()
    door = Door(Inference(Slots(Metrics()), Limits()), BusyPoll(0.0))
    protocol = protocol_for(door)(config, ServerState(), {})
    protocol.connection_made(Wire())
    protocol.data_received(b"GET /healthz HTTP/1.1\r\n")
    protocol.flow.pause_reading()
    began = protocol.since
    protocol.close_if_overdue(began + 1000)
    assert not protocol.refused
    protocol.flow.resume_reading()
    protocol.close_if_overdue(began + 1000 + door.limits.body_seconds - 0.1)
    assert not protocol.refused
    protocol.close_if_overdue(began + 1000 + door.limits.body_seconds + 0.1)
    assert protocol.refused
