"""The loop stays awake for clients that ask again at once, and for nobody else."""

import asyncio
import struct
from collections.abc import Sequence

import pytest
import uvicorn
from uvicorn.server import ServerState

from edgewright_agent.serving import engine
from edgewright_agent.serving.busy_poll import BusyPoll
from edgewright_agent.serving.door import Door
from edgewright_agent.serving.frames import FrameProtocol
from edgewright_agent.serving.hot_route import protocol_for
from edgewright_agent.serving.inference import Inference, Limits
from edgewright_agent.serving.metrics import Metrics
from edgewright_agent.serving.slots import Slots
from edgewright_contract import release as releases

WINDOW = 64

SECONDS = 0.000_15
STEP = 0.000_01
"""What one look at the clock takes, in the time of these tests."""


class Clock:
    """Goes on by a step with each look."""

    def __init__(self) -> None:
        self.now = 100.0
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        self.now += STEP
        return self.now


async def _ended(poll: BusyPoll, clock: Clock) -> int:
    """Turns of the loop until it sleeps."""
    turns, looks = 0, -1
    while looks != clock.looks:
        looks = clock.looks
        await asyncio.sleep(0)
        turns += 1
    return turns - 1


@pytest.mark.parametrize(
    ("seconds", "gaps", "stays"),
    [
        (SECONDS, [], False),  # the first request tells nothing of the next
        (SECONDS, [0.000_05], True),
        (SECONDS, [0.001], False),
        (SECONDS, [0.000_05, 0.001], False),
        (SECONDS, [0.001, 0.000_05], True),
        (0.0, [0.0], False),
    ],
    ids=["first", "soon", "late", "soon then late", "late then soon", "off"],
)
async def test_awake_after_an_answer(seconds: float, gaps: Sequence[float], stays: bool) -> None:
    clock = Clock()
    poll = BusyPoll(seconds, clock)
    poll.asked()
    poll.answered()
    for gap in gaps:
        await _ended(poll, clock)
        clock.now = poll._answered + gap
        poll.asked()
        poll.answered()
    assert bool(await _ended(poll, clock)) is stays


async def test_awake_for_the_time_and_then_no_longer() -> None:
    clock = Clock()
    poll = BusyPoll(SECONDS, clock)
    for _ in range(3):  # three answers at once keep one turn going, not three
        poll.asked()
        poll.answered()
    began = clock.now
    assert await _ended(poll, clock) == pytest.approx(SECONDS / STEP, abs=2)
    assert clock.now - began == pytest.approx(SECONDS, abs=2 * STEP)


async def test_a_request_that_comes_meanwhile_begins_the_time_anew() -> None:
    clock = Clock()
    poll = BusyPoll(SECONDS, clock)
    for _ in range(2):
        poll.asked()
        poll.answered()
    for _ in range(5):
        await asyncio.sleep(0)
    began = clock.now
    poll.asked()
    poll.answered()
    await _ended(poll, clock)
    assert clock.now - began >= SECONDS


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": None, "sockname": None})
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return False


@pytest.fixture
def inference(write_release, tmp_path):
    load = write_release(tmp_path, 1, 2.0)
    release = releases.parse((tmp_path / "release.json").read_bytes())
    model = engine.load((tmp_path / "full.onnx").read_bytes(), load["digest"], release, "full", load["manifest"])
    slots = Slots(Metrics())
    slots.put_shadow("home/nilm", model)
    slots.promote("home/nilm", load["manifest"])
    return Inference(slots, Limits())


def _http(inference: Inference, poll: BusyPoll) -> asyncio.Protocol:
    config = uvicorn.Config("none:none", ws="none", lifespan="off", log_config=None)
    config.load_app = lambda: None  # never asked: every request here takes the hot route
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"today")]
    return protocol_for(Door(inference, poll))(config, state, {})


def _frames(inference: Inference, poll: BusyPoll) -> asyncio.Protocol:
    return FrameProtocol(inference, set(), poll)


DATA = bytes(4 * WINDOW)
HEAD = b'{"inputs":[{"name":"watts","datatype":"FP32","shape":[1,1,64],"parameters":{"binary_data_size":256}}]}'
HTTP = b"POST /v2/models/nilm/infer HTTP/1.1\r\nhost: node\r\ncontent-length: %d\r\n" % (len(HEAD) + len(DATA))
HTTP += b"inference-header-content-length: %d\r\n\r\n%s%s" % (len(HEAD), HEAD, DATA)
FRAME = struct.pack("<IB", 1 + 4 + len(DATA), 4) + b"nilm" + DATA


@pytest.mark.parametrize(("made", "request_"), [(_http, HTTP), (_frames, FRAME)], ids=["http", "frames"])
async def test_every_answer_counts_the_first_of_a_connection_and_the_next(inference, made, request_):
    clock, wire = Clock(), Wire()
    poll = BusyPoll(10.0, clock)
    protocol = made(inference, poll)
    protocol.connection_made(wire)
    for count in (1, 2, 3):
        before = poll._answered
        protocol.data_received(request_)
        assert len(wire.written) == count
        assert poll._answered > before
        assert poll._turning is (count > 1)
    clock.now += 10
    await asyncio.sleep(0)
