"""uvicorn's server without its look at the clock ten times a second: what idles sleeps until something happens."""

import asyncio
import contextlib
from types import FrameType
from typing import Final

import uvicorn

TICK_SECONDS: Final = 1.0
"""As often as the Date header changes."""


class QuietServer(uvicorn.Server):
    """Ends at once when a signal asks for it, and wakes once a second otherwise."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked = asyncio.Event()

    async def main_loop(self) -> None:
        """Until a signal, or a bound of uvicorn's own, ends it."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):  # 0: the Date header is made anew
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._asked.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came."""
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._asked.set)
