"""The frame socket of a real server: answers as HTTP gives them, and refusals that cost the node nothing."""

import asyncio
import os
import socket
import stat
import struct
import threading

import numpy as np
import pytest

from edgewright_agent.serving.busy_poll import BusyPoll
from edgewright_agent.serving.frames import FRAMES_A_TURN, FrameClient, FrameProtocol, FrameRefused, Status
from edgewright_agent.serving.inference import Inference, Limits
from edgewright_agent.serving.metrics import Metrics
from edgewright_agent.serving.slots import Slots

WINDOW = 64


@pytest.fixture
def client(path):
    client = FrameClient(path)
    yield client
    client.close()


@pytest.fixture
def path(start_server, write_release, tmp_path):
    path = tmp_path / "f.sock"
    running = start_server("--frames", str(path))
    running.go_live(write_release(tmp_path / "one", 1, 2.0))
    return path


def test_windows_are_answered_in_order(path, client):
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    for rows, watts in ((1, 0), (3, 2000), (1, 0)):
        version, flat = client.infer("nilm", np.full((rows, 1, WINDOW), watts, np.float32))
        assert version == 1
        assert flat.reshape(rows, 3).argmax(1).tolist() == [int(watts > 0)] * rows


@pytest.mark.parametrize(
    ("name", "watts", "status"),
    [
        ("other", np.zeros(WINDOW), Status.NOT_FOUND),
        ("nilm", np.zeros(WINDOW - 1), Status.BAD_REQUEST),
        ("nilm", np.zeros(0), Status.BAD_REQUEST),
        ("nilm", np.full(WINDOW, np.nan), Status.BAD_REQUEST),
    ],
)
def test_bad_frames_get_a_sentence_and_the_connection_goes_on(client, name, watts, status):
    with pytest.raises(FrameRefused, match=r"\.$") as refused:
        client.infer(name, watts.astype(np.float32))
    assert refused.value.status == status
    assert client.infer("nilm", np.zeros((1, 1, WINDOW), np.float32))[0] == 1


def test_damaged_frames_never_end_the_server(path, client):
    random = np.random.default_rng(7)
    good = struct.pack("<IB", 1 + 4 + 4 * WINDOW, 4) + b"nilm" + bytes(4 * WINDOW)
    for index in range(300):
        data = bytearray(good if index % 2 else os.urandom(64))
        for place in random.integers(0, min(len(data), 12), 2):
            data[place] = random.integers(0, 256)
        with socket.socket(socket.AF_UNIX) as other:
            other.settimeout(5)
            other.connect(str(path))
            other.sendall(data)
            other.shutdown(socket.SHUT_WR)
            while other.recv(65_536):
                pass
    assert client.infer("nilm", np.zeros((1, 1, WINDOW), np.float32))[0] == 1


def test_a_crowd_of_frames_in_one_piece_is_answered_in_turns_and_in_order(path, client):
    empty, whole = struct.pack("<IB", 1, 0), struct.pack("<IB", 1 + 4 + 4 * WINDOW, 4) + b"nilm" + bytes(4 * WINDOW)
    with socket.socket(socket.AF_UNIX) as other:
        other.settimeout(20)
        other.connect(str(path))
        received, statuses = bytearray(), []

        def read() -> None:
            while part := other.recv(1 << 20):
                received.extend(part)

        reading = threading.Thread(target=read)
        reading.start()
        other.sendall((empty * 500 + whole) * 40)
        other.shutdown(socket.SHUT_WR)
        assert client.infer("nilm", np.zeros((1, 1, WINDOW), np.float32))[0] == 1  # others are served meanwhile
        reading.join(60)
        at = 0
        while at < len(received):
            length, status = struct.unpack_from("<IB", received, at)
            statuses.append(status)
            at += 4 + length
    assert statuses == ([Status.NOT_FOUND] * 500 + [Status.OK]) * 40


class Held(asyncio.Transport):
    """Keeps what is written; says whether it is read from."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.reads = [], True

    def write(self, data):
        self.written.append(data)

    def is_closing(self):
        return False

    def pause_reading(self):
        self.reads = False

    def resume_reading(self):
        self.reads = True


async def test_one_turn_answers_a_bounded_number_and_none_while_answers_are_not_taken():
    protocol, wire = FrameProtocol(Inference(Slots(Metrics()), Limits()), set(), BusyPoll(0.0)), Held()
    protocol.connection_made(wire)
    protocol.data_received(struct.pack("<IB", 1, 0) * (FRAMES_A_TURN * 2 + 3))
    assert len(wire.written) <= FRAMES_A_TURN  # fewer where the machine is slow
    assert not wire.reads
    protocol.pause_writing()
    before = len(wire.written)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(wire.written) == before
    protocol.resume_writing()
    for _ in range(500):
        await asyncio.sleep(0)
    assert len(wire.written) == FRAMES_A_TURN * 2 + 3
    assert wire.reads
