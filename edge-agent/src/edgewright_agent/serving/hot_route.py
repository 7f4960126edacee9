"""The infer route answered inside uvicorn's own HTTP protocol, before ASGI; all else goes on to Starlette."""

import time
from typing import Any

from edgewright_agent.serving.bounded import BoundedProtocol
from edgewright_agent.serving.door import SHED_SECONDS, Door
from edgewright_agent.serving.http_response import http_response
from edgewright_agent.serving.inference import Answer
from edgewright_agent.serving.shortcut import Shortcut
from edgewright_agent.serving.slots import SHORT_SECONDS, Loaded


class InferProtocol(BoundedProtocol):
    """One connection. Requests for a live model's infer route never become ASGI messages."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.body: bytes | bytearray = b""
        self.shortcut = Shortcut(self.door.inference)

    def data_received(self, data: bytes) -> None:
        """Answer at once what differs from the last request in its numbers only; feed the parser with all else."""
        if self.refused:
            return
        self.door.busy_poll.asked()
        if not self._again(data):
            super().data_received(data)

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


def protocol_for(door: Door) -> type[InferProtocol]:
    """The protocol class that uvicorn is to use for this door."""
    return type("BoundInferProtocol", (InferProtocol,), {"door": door})
