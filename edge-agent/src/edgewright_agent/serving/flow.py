"""When a connection of the server may be read: uvicorn's flow control, with an end to its queue of requests."""

import asyncio
from collections.abc import Sized

from uvicorn.protocols.http.flow_control import FlowControl


class Flow(FlowControl):
    """Reads nothing more while requests wait or answers are not taken."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        """Read on, if there is nothing to wait for."""
        if not self._pipeline and not self.write_paused and not self._transport.is_closing():
            super().resume_reading()
