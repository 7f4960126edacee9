"""What the last request of a connection looked like: clients send the same head again and again, with other numbers.

The same bytes mean the same, so a head that was read and accepted once needs no parsing again. After an engine has run
for 100 µs the caches are cold, and most of what a server written in Python costs is code that must be fetched anew.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from edgewright_agent.serving import protocol_v2
from edgewright_agent.serving.http_response import http_response
from edgewright_agent.serving.inference import Answer, Inference
from edgewright_agent.serving.slots import Loaded, NoFiniteAnswer, Slots

Headers = Sequence[tuple[bytes, bytes]]
_FLOAT32: Final = np.dtype("<f4")
_LENGTH: Final = b"content-length: "
_END: Final = b"\r\n\r\n"


class _Head:
    """An HTTP head that was accepted, from the request line to its end; only the body's length may differ."""

    def __init__(self, head: bytes, digits: int, url: bytes, header_length: str | None) -> None:
        self.url, self.header_length = url, header_length
        self._before, rest = head[:digits], head[digits:]
        self._after = rest[rest.index(b"\r") :]

    def body_start(self, data: bytes) -> int:
        """Where the body begins, if data is one whole request with this head; else 0."""
        if not data.startswith(self._before):
            return 0
        start = len(self._before)
        end = data.find(b"\r", start, start + 9)
        digits = data[start:end]
        if end < 0 or not digits.isdigit() or not data.startswith(self._after, end):
            return 0
        body = end + len(self._after)
        return body if body + int(digits) == len(data) else 0


class _Numbers:
    """A binary request to the end of its JSON: what follows are the numbers alone."""

    def __init__(self, data: bytes, loaded: Loaded, request: protocol_v2.InferRequest) -> None:
        rows, _, seconds = request.watts.shape
        self._prefix, self._length = data[: len(data) - 4 * rows * seconds], len(data)
        self._shape, self._count = (rows, 1, seconds), rows * seconds
        self._loaded, self._request = loaded, request
        self._headers: Headers | None = None
        self._head = b""

    def fits(self, data: bytes, loaded: Loaded) -> bool:
        """Whether these bytes are the same request with other numbers, to the same loaded model."""
        return len(data) == self._length and data.startswith(self._prefix) and loaded is self._loaded

    def answer(self, data: bytes, slots: Slots, headers: Headers) -> bytes | None:
        """The whole HTTP answer; none where the long way must say what is wrong."""
        watts = np.frombuffer(data, _FLOAT32, self._count, len(self._prefix)).reshape(self._shape)
        if not watts.flags.aligned:
            watts = watts.copy()
        if not np.isfinite(watts).all():
            return None
        try:
            answer = slots.infer_now(self._loaded, watts)
        except NoFiniteAnswer:
            return None
        numbers = answer.astype(_FLOAT32, copy=False).tobytes()
        if headers is not self._headers:  # once a second, with the date
            body, head_length = protocol_v2.encode(self._loaded.name, self._loaded.model, self._request, answer)
            whole = http_response(Answer(200, body, head_length), headers, close=False)
            self._head, self._headers = whole[: len(whole) - len(numbers)], headers
        return self._head + numbers


class Shortcut:
    """One connection's memory of its last request."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self._head: _Head | None = None
        self._numbers: _Numbers | None = None
        self._exact, self._start = False, 0

    def learn(self, data: bytes, body_bytes: int, url: bytes, header_length: str | None) -> None:
        """Remember the head of data, which the parser has accepted for a hot route with `keep-alive`.

        Nothing is learned unless data is one whole request with its length stated once, and nothing around it.
        """
        end = len(data) - body_bytes
        lower = data[:end].lower()
        alone = data.startswith(b"POST ") and data.find(_END) + len(_END) == end
        if alone and lower.count(b"content-length:") == lower.count(b"inference-header-content-length:") + 1:
            place = lower.find(b"\n" + _LENGTH)
            if place > 0:
                self._head = _Head(data[:end], place + 1 + len(_LENGTH), url, header_length)
                self._numbers = None

    def target(self, data: bytes) -> Loaded | None:
        """The model that data asks, if it is one whole request with the remembered head."""
        if self._head is None:
            return None
        loaded = self._inference.slots.paths.get(self._head.url)
        self._exact = loaded is not None and self._numbers is not None and self._numbers.fits(data, loaded)
        if not self._exact:
            self._start = self._head.body_start(data)
            if not self._start or len(data) - self._start > self._inference.limits.body_bytes:
                return None
        return loaded

    def answer(self, loaded: Loaded, data: bytes, headers: Headers) -> bytes | None:
        """The whole HTTP answer to data, for which `target` gave `loaded`; none where it takes the long way."""
        if self._numbers is not None and self._exact:
            return self._numbers.answer(data, self._inference.slots, headers)
        header_length = self._head.header_length if self._head is not None else None
        answer = self._inference.at_once(loaded, data[self._start :], header_length)
        if answer is None:
            return None
        request = self._inference.last
        if answer.status == 200 and answer.head_length and header_length and request is not None:
            self._numbers = _Numbers(data, loaded, request)
        return http_response(answer, headers, close=False)
