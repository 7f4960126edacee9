"""One connection to the server's control socket: a JSON line each way, one question at a time."""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edgewright_contract.conditions import Reason

_LINE_LIMIT: Final = 1024 * 1024


class ServerDown(Exception):
    """The server died, hung or did not start; the reason is for the record of the model on trial."""

    def __init__(self, reason: Reason, message: str, generation: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.generation = generation
        """Which server it was; its owner knows."""


class CommandRefused(Exception):
    """The server lives and said no."""


class Channel:
    """Asks and waits. After an answer that did not come in time it is of no more use."""

    def __init__(self) -> None:
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()

    async def open(self, path: Path) -> None:
        """Connect.

        Raises:
            OSError: nobody listens there.
        """
        self._streams = await asyncio.open_unix_connection(path, limit=_LINE_LIMIT)

    async def ask(self, command: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """One command, one answer.

        Raises:
            ServerDown: no answer in time, or the connection ended.
            CommandRefused: `ok` was not true.
        """
        async with self._turn:
            if self._streams is None:
                raise ServerDown(Reason.CRASH_LOOP, "the server does not run")
            reader, writer = self._streams
            try:
                async with asyncio.timeout(seconds):
                    writer.write(json.dumps(command, separators=(",", ":")).encode() + b"\n")
                    await writer.drain()
                    line = await reader.readline()
                answer = json.loads(line) if line.endswith(b"\n") else None
            except TimeoutError:
                await self.close()  # a late answer must not be taken for the next one's
                raise ServerDown(Reason.HANG, f"no answer to {command['op']} in {seconds:g} s") from None
            except (OSError, ValueError) as error:
                await self.close()
                raise ServerDown(Reason.CRASH_LOOP, f"{command['op']}: {error}") from None
        if not isinstance(answer, dict):
            await self.close()
            raise ServerDown(Reason.CRASH_LOOP, f"the server ended during {command['op']}")
        if answer.get("ok") is False or "error" in answer:
            raise CommandRefused(str(answer.get("error") or answer.get("message") or f"{command['op']} was refused"))
        return answer

    async def close(self) -> None:
        """End the connection, if there is one."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
            with contextlib.suppress(OSError):
                await streams[1].wait_closed()
