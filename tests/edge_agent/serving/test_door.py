"""What keeps a crowd of clients from holding up the event loop."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from edgewright_agent.serving.busy_poll import BusyPoll
from edgewright_agent.serving.door import SWEEP_SECONDS, Door
from edgewright_agent.serving.inference import Inference, Limits
from edgewright_agent.serving.metrics import Metrics
from edgewright_agent.serving.protocol_v2 import MAX_NUMBERS
from edgewright_agent.serving.slots import Slots

WINDOW = 64
LONGEST = 50.0
"""Milliseconds."""


class Connection:
    def __init__(self, idle: bool) -> None:
        self.idle, self.asked = idle, 0

    def gives_way(self, now: float) -> bool:
        self.asked += 1
        gave, self.idle = self.idle, False
        return gave

    def close_if_overdue(self, now: float) -> None:
        """Never."""


@pytest.fixture
def door() -> Door:
    return Door(Inference(Slots(Metrics()), Limits()), BusyPoll(0.0))


def test_a_crowd_at_the_door_asks_each_connection_once(door: Door) -> None:
    busy = [Connection(idle=False) for _ in range(500)]
    for _ in range(1000):
        assert not door.makes_room(busy, 100.0)
    assert {one.asked for one in busy} == {1}
    busy[7].idle = True
    assert not door.makes_room(busy, 100.0 + SWEEP_SECONDS / 2)
    assert door.makes_room(busy, 100.0 + SWEEP_SECONDS)


def test_each_idle_connection_makes_room_for_one(door: Door) -> None:
    held = [Connection(idle=index % 2 == 0) for index in range(10)]
    assert [door.makes_room(held, 100.0) for _ in range(7)] == [True] * 5 + [False] * 2


@pytest.mark.parametrize(
    ("data", "endless"),
    [
        (b"GET / HTTP/1.1\r\n" + b"h: v\r\n" * 20_000, True),
        (b"GET / HTTP/1.1\r\n" + b"h: v\r\n" * 20_000 + b"\r\n", True),
        (b"POST / HTTP/1.1\r\n\r\n" + b"x" * 100_000, False),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 1_000, False),
    ],
)
def test_a_head_that_is_too_long_is_seen_before_it_is_parsed(door: Door, data: bytes, endless: bool) -> None:
    assert door.has_no_end(data) is endless


def test_more_numbers_than_are_read_as_json_are_a_bad_request(shared: Any) -> None:
    rows = MAX_NUMBERS // WINDOW + 1
    tensor = {"name": "watts", "datatype": "FP32", "shape": [rows, 1, WINDOW], "data": [5] * (rows * WINDOW)}
    answer = shared.http.post("/v2/models/nilm/infer", content=json.dumps({"inputs": [tensor]}))
    assert answer.status_code == 400
    assert (
        answer.json()["error"]
        == f"At most {MAX_NUMBERS} numbers may come as JSON; send fewer windows, or send them binary."
    )
    tensor = {**tensor, "shape": [rows - 1, 1, WINDOW], "data": [5] * ((rows - 1) * WINDOW)}
    assert shared.http.post("/v2/models/nilm/infer", content=json.dumps({"inputs": [tensor]})).status_code == 200


def _post(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: n\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


HEAVY = {
    "numbers": _post("/v2/models/nilm/infer", b'{"inputs":[' + b",".join([b"5"] * 500_000) + b"]}"),
    "brackets": _post("/v2/models/nilm/infer", b'{"inputs":' + b"[" * 1_000_000),
    "readings": _post("/v1/readings", b'{"readings":[' + b",".join([b'{"t":9,"watts":5}'] * 50_000) + b"]}"),
    "headers": b"POST /v2/models/nilm/infer HTTP/1.1\r\n" + b"h: v\r\n" * 160_000,
}


@pytest.mark.parametrize("kind", HEAVY)
def test_nothing_that_clients_send_holds_the_loop_up(shared: Any, kind: str) -> None:
    """Time that the server's thread runs until a ping is answered; what others take of the processor is not in it."""
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            with socket.create_connection(("127.0.0.1", shared.port), timeout=20) as client:
                try:
                    client.sendall(HEAVY[kind])
                    client.recv(65_536)
                except ConnectionError:
                    continue

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    longest = 0.0
    for _ in range(60):
        before = _ran(shared.process.pid)
        assert shared.ask({"op": "ping"}) == {"ok": True}
        longest = max(longest, _ran(shared.process.pid) - before)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert longest <= LONGEST


def _ran(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6
