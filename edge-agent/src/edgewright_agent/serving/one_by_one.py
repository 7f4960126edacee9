"""Work that holds the event loop for some milliseconds, one piece in each turn, however many clients have some."""

import asyncio
from types import TracebackType
from typing import Self


class OneByOne:
    """`async with` around each piece; no piece may wait for anything."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self._turn.acquire()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await asyncio.sleep(0)
        finally:
            self._turn.release()
