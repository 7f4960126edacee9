"""The infer route answered inside uvicorn's own HTTP protocol, before ASGI; every other request goes on to Starlette.

Here also stand the bounds that uvicorn lacks: head size, number of connections, read and write deadlines.
"""

import asyncio
import time
from collections import deque
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from edgewright_agent.serving.door import DRAIN_SECONDS, LINGER_SECONDS, SHED_SECONDS, Door
from edgewright_agent.serving.flow import Flow
from edgewright_agent.serving.http_response import http_response
from edgewright_agent.serving.inference import BUSY, Answer, refusal
from edgewright_agent.serving.shortcut import Shortcut
from edgewright_agent.serving.slots import SHORT_SECONDS, Loaded


class InferProtocol(HttpToolsProtocol):
    """One connection. Requests for a live model's infer route never become ASGI messages."""

    door: ClassVar[Door]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.since = self.loop.time()  # when the request that arrives now began, or the last one did
        self.arriving = self.in_head = self.hot = self.refused = self.fresh = False
        self.head_bytes = self.body_bytes = self.begun = 0
        self.stalled_since: float | None = None
        self.header_length: str | None = None
        self.body: bytes | bytearray = b""
        self.fed, self.data = 0.0, b""
        self.shortcut = Shortcut(self.door.inference)
        self.cycles: deque[RequestResponseCycle] = deque()  # what ASGI has not answered yet, in its order

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection in, or turn it away when there are too many that do something."""
        super().connection_made(transport)
        self.flow = Flow(transport, self.pipeline)
        over = len(self.connections) - self.door.limits.connections
        if over > self.door.limits.connections:
            transport.abort()
        elif over > 0 and not self.door.makes_room(self.connections, self.loop.time()):
            self.refuse(503, BUSY)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every request that waits for its answer, where uvicorn tells the last one only."""
        self.pipeline.clear()
        for cycle in self.cycles:
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """ASGI has answered the first of them."""
        self.cycles.popleft()
        super().on_response_complete()

    def gives_way(self, now: float) -> bool:
        """Close the connection if it has been idle for a second; whether it was."""
        if now - self.since <= 1 or self.arriving or not self._is_alone() or self.transport.is_closing():
            return False
        self.transport.close()
        return True

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which calls the methods below."""
        self.door.busy_poll.asked()
        if self.refused or self._again(data):
            return
        self.fresh = not self.arriving
        if self.fresh:
            self.since = self.loop.time()
        if (self.fresh or self.in_head) and self.door.has_no_end(data):
            self._check_head(len(data))  # before the parser calls back for each of its headers
            return
        self.begun, self.fed, self.data = 0, time.perf_counter(), data
        super().data_received(data)
        if self.in_head and self.begun == int(self.fresh):  # else a part of the data was another request's
            self.head_bytes += len(data)
            self._check_head(self.head_bytes)

    def pause_writing(self) -> None:
        """The client does not read its answers."""
        self.stalled_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self.stalled_since = None
        super().resume_writing()
        self.flow.resume_reading()

    def shutdown(self) -> None:
        """Let the client send one more request, which is answered with `close`, instead of cutting it off."""
        self.door.draining = True
        if self.cycle is not None and not self.cycle.response_complete:
            super().shutdown()

    def on_message_begin(self) -> None:
        """A request begins. The ASGI scope is only made where ASGI will see it."""
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self.hot, self.arriving, self.in_head, self.head_bytes = False, True, True, 0
        self.begun += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header is whole."""
        name = name.lower()
        self.headers.append((name, value))
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        """Take the request here, or pass it on to ASGI."""
        self.in_head, self.body_bytes = False, 0
        compressed = self._read_headers()
        if self.refused:
            return
        self.hot = not compressed and self.url in self.door.inference.slots.paths and self._fits_here()
        if self.hot:
            self.body = b""
        else:
            self._to_asgi()

    def _read_headers(self) -> bool:
        """Check sizes, note the length of the JSON part; whether the body is compressed."""
        size, compressed = len(self.url), False
        self.header_length = None
        for name, value in self.headers:
            size += len(name) + len(value) + 4
            if name == b"content-length":
                if int(value) > self.door.limits.body_bytes:
                    self._refuse_size()
            elif name == b"inference-header-content-length":
                if self.header_length is None:
                    self.header_length = value.decode("latin-1")
            elif name == b"content-encoding":
                compressed = True
        self._check_head(size)
        return compressed

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self.body_bytes += len(body)
        if self.body_bytes > self.door.limits.body_bytes:
            self._refuse_size()
        if self.refused:
            return
        if not self.hot:
            super().on_body(body)
        elif not self.body:
            self.body = body
        else:
            if isinstance(self.body, bytes):
                self.body = bytearray(self.body)
            self.body += body

    def on_message_complete(self) -> None:
        """The request is whole: answer it."""
        self.arriving = False
        if not self.hot:
            if not self.refused:
                super().on_message_complete()
            return
        self.hot = False
        loaded = self.door.inference.slots.paths.get(self.url)  # anew: a swap may have come meanwhile
        answer = self._answer(loaded) if loaded is not None else None
        if answer is None:
            self._hand_over()
            return
        self._send(answer)
        if self.fresh and self.begun == 1 and not self.refused:
            self.shortcut.learn(self.data, self.body_bytes, self.url, self.header_length)

    def _again(self, data: bytes) -> bool:
        """Answer a request that differs from the last one in its numbers only."""
        if self.arriving or self.door.draining or self.flow.write_paused or not self._is_alone():
            return False
        loaded, headers = self.shortcut.target(data), self.server_state.default_headers
        if loaded is None:
            return False
        if self.door.admits(len(self.connections)):
            answer = self.shortcut.answer(loaded, data, headers)
            if answer is None:
                return False
        else:
            answer = http_response(self._shed(loaded), headers, close=False)
        self.since = self.loop.time()
        self._unset_keepalive_if_required()
        self.transport.write(answer)
        self.server_state.total_requests += 1
        self.door.busy_poll.answered()
        return True

    def _fits_here(self) -> bool:
        """Whether the hot way takes this request; what is rare or pipelined behind ASGI takes the plain way."""
        if self.expect_100_continue or self.parser.get_method() != b"POST" or self.parser.should_upgrade():
            return False
        if self.parser.get_http_version() != "1.1" or not self._is_alone():
            return False
        return time.perf_counter() - self.fed <= SHORT_SECONDS  # else many came in one piece: others want their turn

    def _is_alone(self) -> bool:
        return self.cycle is None or (self.cycle.response_complete and not self.pipeline)

    def _answer(self, loaded: Loaded) -> Answer | None:
        if not self.door.admits(len(self.connections)):
            return self._shed(loaded)
        return self.door.inference.at_once(loaded, self.body, self.header_length)

    def _shed(self, loaded: Loaded) -> Answer:
        """Refuse, and read no more for a moment: who asks again at once would cost others their answers."""
        self.flow.pause_reading()
        self.loop.call_later(SHED_SECONDS, self.flow.resume_reading)
        return self.door.inference.shed(loaded)

    def _to_asgi(self) -> None:
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expect
        self.scope["headers"] = headers
        super().on_headers_complete()
        self.cycles.append(self.cycle)
        if self.door.draining:
            self.cycle.keep_alive = False

    def _hand_over(self) -> None:
        """ASGI gets the request with the body that is here already."""
        self._to_asgi()
        super().on_body(bytes(self.body))
        super().on_message_complete()

    def _send(self, answer: Answer) -> None:
        keep = self.parser.should_keep_alive() and not self.door.draining
        self.transport.write(http_response(answer, self.server_state.default_headers, close=not keep))
        self.server_state.total_requests += 1
        self.door.busy_poll.answered()
        if not keep:
            self.refused = True  # what was sent after this request gets no answer
            self.transport.close()
        elif self.flow.write_paused:
            self.flow.pause_reading()

    def _check_head(self, size: int) -> None:
        limits = self.door.limits
        if size > limits.head_bytes or len(self.headers) > limits.headers:
            self.refuse(431, f"The head may have at most {limits.head_bytes} bytes and {limits.headers} headers.")

    def _refuse_size(self) -> None:
        self.refuse(413, f"The body may have at most {self.door.limits.body_bytes} bytes; send fewer windows.")

    def send_400_response(self, msg: str) -> None:
        """What cannot be read as HTTP is refused like all else, without a line in the log for each."""
        self.refuse(400, "This is not an HTTP/1.1 request.")

    def _unsupported_upgrade_warning(self) -> None:
        """No line in the log for each of these either."""

    def refuse(self, status: int, sentence: str) -> None:
        """Answer, then read no more: what still arrives is dropped until the client has gone or time is up."""
        if self.refused:
            return
        if self.arriving and not self.in_head and not self.hot and not self.pipeline:
            self._leave_asgi()
        self.refused, self.hot, self.since = True, False, self.loop.time()
        if not self._is_alone():
            self.cycle.keep_alive = False  # the request before this one still gets its answer
        elif not self.transport.is_closing():
            headers = self.server_state.default_headers
            self.transport.write(http_response(refusal(status, sentence), headers, close=True))
            if self.transport.can_write_eof():
                self.transport.write_eof()

    def _leave_asgi(self) -> None:
        """ASGI waits for the rest of a body that nobody wants: to it the client has gone."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_started:
            cycle.disconnected = cycle.response_complete = True
            cycle.message_event.set()

    def close_if_overdue(self, now: float) -> None:
        """Apply the deadlines; called a few times a second."""
        limits, waited = self.door.limits, now - self.since
        if self.stalled_since is not None and now - self.stalled_since > limits.write_seconds:
            self.transport.abort()
        elif self.refused:
            if waited > LINGER_SECONDS and self._is_alone():
                self.transport.abort()
        elif self.arriving:
            if self.flow.read_paused:
                self.since = now  # it is the server that keeps it waiting
            elif waited > limits.body_seconds and (self.in_head or self.hot):
                self.refuse(408, f"The request took longer than {limits.body_seconds:g} s.")
        elif self._is_alone() and waited > (DRAIN_SECONDS if self.door.draining else limits.idle_seconds):
            self.transport.close()


def protocol_for(door: Door) -> type[InferProtocol]:
    """The protocol class that uvicorn is to use for this door."""
    return type("BoundInferProtocol", (InferProtocol,), {"door": door})
