"""When a connection of the server may be read: uvicorn's flow control, with an end to its queue of requests."""

import asyncio
from collections.abc import Sized

from uvicorn.protocols.http.flow_control import FlowControl


class Flow(FlowControl):
    """Reads nothing more while requests wait, answers are not taken, or something that was read waits for its turn."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline
        self.rest = b""
        """What was read and not parsed yet."""

    def hold(self, data: bytes) -> None:
        """Keep this for a later turn of the event loop."""
        self.rest += data
        self.pause_reading()

    def release(self) -> bytes:
        """What was held; reading goes on."""
        data, self.rest = self.rest, b""
        self.resume_reading()
        return data

    def is_full(self) -> bool:
        """Whether nothing more is to be parsed now."""
        return bool(self._pipeline) or self.write_paused

    def resume_reading(self) -> None:
        """Read on, if there is nothing to wait for."""
        if not self.rest and not self.is_full() and not self._transport.is_closing():
            super().resume_reading()
