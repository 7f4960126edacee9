"""uvicorn's HTTP protocol with the bounds that it lacks: sizes, number of connections, deadlines, time in one turn.

Below hot_route.py, which answers the infer route in it.
"""

import asyncio
import time
from collections import deque
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from edgewright_agent.serving.door import DRAIN_SECONDS, LINGER_SECONDS, Door
from edgewright_agent.serving.flow import Flow
from edgewright_agent.serving.http_response import http_response
from edgewright_agent.serving.inference import BUSY, refusal

PIECE: Final = 4 * 1024
"""So many bytes are parsed at once, for each few may be a chunk or a request; of a body with a stated length, all."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    door: ClassVar[Door]
    flow: Flow

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.since = self.loop.time()  # when the request that arrives now began, or the last one did
        self.arriving = self.in_head = self.hot = self.refused = self.fresh = False
        self.head_bytes = self.body_bytes = self.length = self.begun = 0
        self.stalled_since: float | None = None
        self.header_length: str | None = None
        self.fed, self.data = 0.0, b""
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
        self.flow.rest = b""
        for cycle in self.cycles:
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """ASGI has answered the first of them."""
        self.cycles.popleft()
        super().on_response_complete()
        self._go_on_soon()

    def gives_way(self, now: float) -> bool:
        """Close the connection if it has been idle for a second; whether it was."""
        if now - self.since <= 1 or self.arriving or not self._is_alone() or self.transport.is_closing():
            return False
        self.transport.close()
        return True

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which calls the methods below."""
        if self.refused:
            return
        if self.door.is_late():
            self._wait_with(data)
            return
        self.fresh = not self.arriving
        if self.fresh:
            self.since = self.loop.time()
        if (self.fresh or self.in_head) and self.door.has_no_end(data):
            self._check_head(len(data))  # before the parser calls back for each of its headers
            return
        self.begun, self.fed, self.data = 0, time.perf_counter(), data
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        """Parse as much of it as this turn of the event loop has time for."""
        start = 0
        while start < len(data) and not self.refused:
            if start and (self.door.is_late() or self.flow.is_full()):
                self._wait_with(data[start:])
                return
            end = start + max(PIECE, 0 if self.in_head or not self.arriving else self.length - self.body_bytes)
            piece = data[start:end]
            super().data_received(piece)
            if self.in_head and self.begun == int(self.fresh):  # else a part of the data was another request's
                self.head_bytes += len(piece)
                self._check_head(self.head_bytes)
            start = end

    def _wait_with(self, data: bytes) -> None:
        """Others have their turn; nothing more is read meanwhile."""
        self.flow.hold(data)
        self._go_on_soon()

    def _go_on_soon(self) -> None:
        if self.flow.rest and not self.flow.is_full():
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Take what waited, if nothing else is to be waited for."""
        if not self.flow.is_full() and not self.transport.is_closing():
            rest = self.flow.release()
            if rest:
                self.data_received(rest)

    def pause_writing(self) -> None:
        """The client does not read its answers."""
        self.stalled_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self.stalled_since = None
        super().resume_writing()
        self.flow.resume_reading()
        self._go_on_soon()

    def _read_headers(self) -> bool:
        """Check sizes, note the length of the JSON part; whether the body is compressed."""
        size, compressed = len(self.url), False
        self.header_length, self.length = None, 0
        for name, value in self.headers:
            size += len(name) + len(value) + 4
            if name == b"content-length":
                self.length = int(value)
                if self.length > self.door.limits.body_bytes:
                    self._refuse_size()
            elif name == b"inference-header-content-length":
                if self.header_length is None:
                    self.header_length = value.decode("latin-1")
            elif name == b"content-encoding":
                compressed = True
        self._check_head(size)
        return compressed

    def _is_alone(self) -> bool:
        return self.cycle is None or (self.cycle.response_complete and not self.pipeline)

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
