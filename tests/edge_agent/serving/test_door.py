"""What keeps a crowd of clients from holding up the event loop."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgewright_agent.serving.busy_poll import BusyPoll
from edgewright_agent.serving.door import SWEEP_SECONDS, Door
from edgewright_agent.serving.inference import Inference, Limits
from edgewright_agent.serving.metrics import Metrics
from edgewright_agent.serving.protocol_v2 import MAX_NUMBERS
from edgewright_agent.serving.slots import Slots

WINDOW = 64


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
