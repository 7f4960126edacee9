"""The frame socket of a real server: answers as HTTP gives them, and refusals that cost the node nothing."""

import os
import socket
import stat
import struct

import numpy as np
import pytest

from edgewright_agent.serving.frames import FrameClient, FrameRefused, Status

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
