"""Windows as length-prefixed frames on a Unix socket: the cheapest door for a program on the same node.

A request is `<I length> <B name length> <name> <float32 watts…>`, an answer `<I length> <B status> <I version>
<float32 probabilities…>`, or a UTF-8 sentence where the status is not `OK`. All numbers are little-endian and
`length` counts what follows it. Answers come in the order of the requests.
"""

import asyncio
import itertools
import logging
import socket
import struct
import time
from enum import IntEnum
from pathlib import Path
from typing import Final, cast

import numpy as np

from edgewright_agent.serving import local_socket
from edgewright_agent.serving.busy_poll import BusyPoll
from edgewright_agent.serving.engine import Probabilities, Watts
from edgewright_agent.serving.inference import BUSY, FAILED, Inference
from edgewright_agent.serving.slots import SHORT_SECONDS, Loaded, NoFiniteAnswer

log = logging.getLogger(__name__)
_FLOAT32: Final = np.dtype("<f4")
_REQUEST: Final = struct.Struct("<IB")
_ANSWER: Final = struct.Struct("<IBI")
_LENGTH: Final = struct.Struct("<I")
FRAMES_A_TURN: Final = 64
"""So many frames of one client are answered before others get their turn; it is not read meanwhile."""


class Status(IntEnum):
    """What became of a frame."""

    OK = 0
    BAD_REQUEST = 1
    NOT_FOUND = 2
    FAILED = 3
    BUSY = 4


class FrameRefused(Exception):
    """The node answered with a sentence instead of probabilities."""

    def __init__(self, status: Status, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class FrameProtocol(asyncio.Protocol):
    """One local client. Only short requests are answered: a frame that would hold the loop is refused."""

    def __init__(self, inference: Inference, connections: set["FrameProtocol"], busy_poll: BusyPoll) -> None:
        self._inference, self._connections, self._busy_poll = inference, connections, busy_poll
        self._data: bytes | bytearray = b""
        self._transport: asyncio.Transport | None = None
        self._prefix, self._length, self._name = b"", 0, ""
        """The last frame before its watts, its whole length, and the model that it names: mostly the next one's too."""
        self._stuck = self._more = False
        """Its answers are not taken; whole frames wait for the next turn."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the client in."""
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        if len(self._connections) > self._inference.limits.connections:
            self._refuse_all(_sentence(Status.BUSY, BUSY))

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it out."""
        self._connections.discard(self)
        self._transport = None

    def pause_writing(self) -> None:
        """It does not take its answers: read no more of its requests."""
        self._stuck = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It does again."""
        self._stuck = False
        self._go_on()

    def data_received(self, data: bytes) -> None:
        """Answer every frame that is whole."""
        if self._transport is None or self._transport.is_closing():
            return
        self._busy_poll.asked()
        if not self._data and len(data) == self._length and data.startswith(self._prefix):
            self._transport.write(self._answer(self._name, memoryview(data)[len(self._prefix) :]))
            self._busy_poll.answered()
            return
        self._data = data if not self._data else self._data + data
        if not self._more:
            self._answer_whole(self._transport)

    def _answer_whole(self, transport: asyncio.Transport) -> None:
        """Answer the whole frames that are here, as many as one turn has time for; the others in the next."""
        at, until = 0, time.perf_counter() + SHORT_SECONDS
        for count in itertools.count(1):
            end = self._end(at)
            if not end or transport.is_closing():
                break
            start = at + _REQUEST.size + self._data[at + _LENGTH.size]
            self._prefix, self._length = bytes(self._data[at:start]), end - at
            self._name = self._prefix[_REQUEST.size :].decode("ascii", "replace")
            transport.write(self._answer(self._name, memoryview(self._data)[start:end]))
            self._busy_poll.answered()
            at = end
            if count >= FRAMES_A_TURN or time.perf_counter() > until:
                self._more = True
                transport.pause_reading()
                asyncio.get_running_loop().call_soon(self._next_turn)
                break
        self._data = self._data[at:] if len(self._data) > at else b""

    def _end(self, at: int) -> int:
        """Where the frame ends that begins at this place; 0 where it is not whole yet, or was refused."""
        if len(self._data) - at < _REQUEST.size:
            return 0
        length, name_length = _REQUEST.unpack_from(self._data, at)
        if not 1 + name_length <= length <= self._inference.limits.body_bytes:
            limit = self._inference.limits.body_bytes
            self._refuse_all(_sentence(Status.BAD_REQUEST, f"A frame may have at most {limit} bytes."))
            return 0
        end = at + _LENGTH.size + length
        return end if end <= len(self._data) else 0

    def _next_turn(self) -> None:
        self._more = False
        self._go_on()

    def _go_on(self) -> None:
        """Answer what waits and read on, unless the client does not take its answers."""
        if self._transport is None or self._transport.is_closing() or self._stuck or self._more:
            return
        self._answer_whole(self._transport)
        if not self._more:
            self._transport.resume_reading()

    def _refuse_all(self, sentence: bytes) -> None:
        if self._transport is not None:
            self._transport.write(sentence)
            self._transport.close()

    def _answer(self, name: str, payload: memoryview) -> bytes:
        loaded = self._inference.slots.live.get(name)
        if loaded is None:
            return _sentence(Status.NOT_FOUND, "No model of this name is live here.")
        seconds = loaded.model.window.seconds
        rows, rest = divmod(len(payload), 4 * seconds)
        if rest or not rows or not self._inference.slots.is_short(loaded, rows):
            return _sentence(Status.BAD_REQUEST, f"Send whole windows of {seconds} float32, and fewer at once.")
        watts = np.frombuffer(payload, _FLOAT32)
        if not np.isfinite(watts).all():
            return _sentence(Status.BAD_REQUEST, "The watts hold NaN or infinity; fill gaps before sending.")
        return self._run(loaded, (watts if watts.flags.aligned else watts.copy()).reshape(rows, 1, seconds))

    def _run(self, loaded: Loaded, watts: Watts) -> bytes:
        try:
            answer = self._inference.slots.infer_now(loaded, watts)
        except NoFiniteAnswer as error:
            return _sentence(Status.BAD_REQUEST, str(error))
        except Exception:
            log.exception("%s failed on a frame", loaded.full_name)
            return _sentence(Status.FAILED, FAILED)
        data = answer.astype(_FLOAT32, copy=False).tobytes()
        return _ANSWER.pack(5 + len(data), Status.OK, loaded.model.version) + data


def _sentence(status: Status, text: str) -> bytes:
    data = text.encode()
    return _ANSWER.pack(5 + len(data), status, 0) + data


async def listen(inference: Inference, path: Path, busy_poll: BusyPoll) -> asyncio.Server:
    """Open the socket, mode 0660, so that a group may use it; one left by an earlier process is replaced."""
    connections: set[FrameProtocol] = set()
    with local_socket.place_for(path, 0o660):
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(lambda: FrameProtocol(inference, connections, busy_poll), path)


class FrameClient:
    """The client's half, blocking: one request at a time."""

    def __init__(self, path: Path, seconds: float = 10.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(seconds)
        self._socket.connect(str(path))

    def infer(self, name: str, watts: Watts) -> tuple[int, Probabilities]:
        """Model version and probabilities, flat [rows * classes], of watts [rows, 1, window seconds].

        Raises:
            FrameRefused: the node said no, and why.
            OSError: the connection ended.
        """
        data, encoded = watts.astype(_FLOAT32, copy=False).tobytes(), name.encode()
        self._socket.sendall(_REQUEST.pack(1 + len(encoded) + len(data), len(encoded)) + encoded + data)
        length = _LENGTH.unpack(self._exactly(_LENGTH.size))[0]
        answer = self._exactly(length)
        status, version = struct.unpack_from("<BI", answer)
        if status != Status.OK:
            raise FrameRefused(Status(status), answer[5:].decode())
        return version, np.frombuffer(answer, _FLOAT32, offset=5)

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = self._socket.recv(count - len(data))
            if not part:
                raise ConnectionError("The node closed the frame socket.")
            data += part
        return bytes(data)
