"""The infer route answered inside uvicorn's own HTTP protocol, before ASGI; every other request goes on to FastAPI.

Here also stand the bounds that uvicorn lacks: head size, number of connections, read and write deadlines.
"""

import asyncio
import time
from collections.abc import Sized
from typing import Any, ClassVar, Final, cast

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edgewright_agent.serving.door import DRAIN_SECONDS, LINGER_SECONDS, Door
from edgewright_agent.serving.http_response import http_response
from edgewright_agent.serving.inference import BUSY, Answer, refusal
from edgewright_agent.serving.slots import SHORT_SECONDS, Loaded

_NEEDED: Final = {
    *("connection_made", "data_received", "on_message_begin", "on_url", "on_header", "on_headers_complete"),
    *("on_body", "on_message_complete", "shutdown", "pause_writing", "resume_writing", "send_400_response"),
}
_NEEDED_STATE: Final = {
    *("url", "headers", "scope", "cycle", "pipeline", "flow", "parser", "expect_100_continue", "connections"),
    *("server_state", "transport", "loop"),
}


class _Flow(FlowControl):
    """Reads nothing more while requests wait or answers are not taken; uvicorn's own lets the queue grow."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        """Read on, if there is nothing to wait for."""
        if not self._pipeline and not self.write_paused:
            super().resume_reading()


class InferProtocol(HttpToolsProtocol):
    """One connection. Requests for a live model's infer route never become ASGI messages."""

    door: ClassVar[Door]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.since = self.loop.time()
        """When the request that arrives now began, or the last one did."""
        self.arriving = self.in_head = self.hot = self.refused = False
        self.head_bytes = self.body_bytes = self.begun = 0
        self.fed = 0.0
        self.stalled_since: float | None = None
        self.body: bytes | bytearray = b""
        self.header_length: str | None = None

    # The transport's calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection in, or turn it away when there are too many that do something."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        limit = self.door.limits.connections
        if len(self.connections) <= limit or self._make_room():
            return
        if len(self.connections) > 2 * limit:
            transport.abort()
        else:
            self.refuse(503, BUSY)

    def _make_room(self) -> bool:
        now = self.loop.time()
        for other in cast("set[InferProtocol]", self.connections):
            if other is not self and other.is_idle() and now - other.since > 1 and not other.transport.is_closing():
                other.transport.close()
                return True
        return False

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which calls the methods below."""
        if self.refused:
            return
        if not self.arriving:
            self.since = self.loop.time()
        in_head, self.begun, self.fed = self.in_head, 0, time.perf_counter()
        super().data_received(data)
        if self.in_head and (in_head or self.begun == 1):  # else a part of the data was another request's
            self.head_bytes += len(data)
            self._check_head()

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

    # The parser's calls

    def on_message_begin(self) -> None:
        """A request begins. The ASGI scope is only made where ASGI will see it."""
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self.hot, self.arriving, self.in_head, self.head_bytes = False, True, True, 0
        self.begun += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header is whole."""
        self.head_bytes += len(name) + len(value) + 4
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Take the request here, or pass it on to ASGI."""
        self.in_head = False
        self.body_bytes = 0
        self._check_head()
        self._check_length()
        if self.refused:
            return
        self.hot = self.url in self.door.inference.slots.paths and self._fits_here()
        if self.hot:
            self.body = b""
        else:
            self._to_asgi()

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
        if self.refused:
            return
        if not self.hot:
            super().on_message_complete()
            return
        self.hot = False
        loaded = self.door.inference.slots.paths.get(self.url)  # a swap may have come while the body arrived
        answer = self._answer(loaded) if loaded is not None else None
        if answer is None:
            self._hand_over()
        else:
            self._send(answer)

    # What follows from them

    def _fits_here(self) -> bool:
        """Whether the hot way takes this request; what is rare or pipelined behind ASGI takes the plain way."""
        if self.expect_100_continue or self.parser.get_method() != b"POST" or self.parser.should_upgrade():
            return False
        if self.parser.get_http_version() != "1.1" or not self._is_alone():
            return False
        self.header_length = None
        for name, value in self.headers:
            if name == b"inference-header-content-length" and self.header_length is None:
                self.header_length = value.decode("latin-1")
            elif name == b"content-encoding":
                return False
        return time.perf_counter() - self.fed <= SHORT_SECONDS  # else many came in one piece: others want their turn

    def _is_alone(self) -> bool:
        return self.cycle is None or (self.cycle.response_complete and not self.pipeline)

    def is_idle(self) -> bool:
        """Whether no request arrives or is being answered."""
        return not self.arriving and self._is_alone()

    def _answer(self, loaded: Loaded) -> Answer | None:
        if not self.door.admits(len(self.connections)):
            return self.door.inference.shed(loaded)
        return self.door.inference.at_once(loaded, self.body, self.header_length)

    def _to_asgi(self) -> None:
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expect
        self.scope["headers"] = headers
        super().on_headers_complete()
        if self.door.draining:
            self.cycle.keep_alive = False

    def _hand_over(self) -> None:
        """ASGI gets the request with the body that is here already."""
        body, self.body = bytes(self.body), b""
        self._to_asgi()
        super().on_body(body)
        super().on_message_complete()

    def _send(self, answer: Answer) -> None:
        keep = self.parser.should_keep_alive() and not self.door.draining
        self.transport.write(http_response(answer, self.server_state.default_headers, close=not keep))
        self.server_state.total_requests += 1
        if not keep:
            self.refused = True  # what was sent after this request gets no answer
            self.transport.close()
        elif self.flow.write_paused:
            self.flow.pause_reading()

    def _check_head(self) -> None:
        limits = self.door.limits
        if self.head_bytes > limits.head_bytes or len(self.headers) > limits.headers:
            self.refuse(431, f"The head may have at most {limits.head_bytes} bytes and {limits.headers} headers.")

    def _check_length(self) -> None:
        for name, value in self.headers:
            if name == b"content-length" and int(value) > self.door.limits.body_bytes:
                self._refuse_size()

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
            answer = refusal(status, sentence)
            self.transport.write(http_response(answer, self.server_state.default_headers, close=True))
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
            if waited > limits.body_seconds and (self.in_head or self.hot):
                self.refuse(408, f"The request took longer than {limits.body_seconds:g} s.")
        elif self._is_alone() and waited > (DRAIN_SECONDS if self.door.draining else limits.idle_seconds):
            self.transport.close()


def protocol_for(door: Door) -> type[InferProtocol]:
    """The protocol class that uvicorn is to use for this door."""
    return type("BoundInferProtocol", (InferProtocol,), {"door": door})


def misfit(protocol: type[Any] = HttpToolsProtocol) -> str | None:
    """Why this uvicorn cannot carry the hot route, or none where it can: it rests on names that are not public."""
    missing = sorted(name for name in _NEEDED if not callable(getattr(protocol, name, None)))
    set_there = {name for method in ("__init__", "on_message_begin") for name in _names_in(protocol, method)}
    missing += sorted(_NEEDED_STATE - set_there)
    return f"uvicorn's HTTP protocol has no {', '.join(missing)}" if missing else None


def _names_in(protocol: type[Any], method: str) -> tuple[str, ...]:
    code = getattr(getattr(protocol, method, None), "__code__", None)
    return code.co_names if code is not None else ()
