"""The server, seen from its owner: the listening socket, one process at a time, and the handing over to the next.

The socket outlives the processes, so connections wait in its queue while a dead or hung one is replaced.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from edgewright_agent import starting, tied
from edgewright_agent.channel import CommandRefused, ServerDown
from edgewright_agent.processes import usage
from edgewright_agent.server_process import ServerProcess
from edgewright_contract.conditions import Reason

__all__ = ["CommandRefused", "Server", "ServerDown"]

FINISH_SECONDS: Final = 12.0
"""A replaced server gets so long for the requests that it has begun."""


class Server:
    """One server process at a time on the same socket; two for the moment of handing over."""

    def __init__(
        self,
        listener: socket.socket,
        control: Path,
        *,
        start_seconds: float,
        hang_seconds: float,
        command: Sequence[str] | None = None,
        begun: asyncio.subprocess.Process | None = None,
    ) -> None:
        """`begun`: the first process, where it was started already."""
        self._listener = listener
        self._control = control
        self._start_seconds = start_seconds
        self._hang_seconds = hang_seconds
        self._command = command or tied.command("edgewright_agent.serving")
        self._begun = begun
        self._process: ServerProcess | None = None
        self._spawned = 0

    @property
    def generation(self) -> int:
        """Which process runs, so that the news of a death is told from that of the next one."""
        return self._process.generation if self._process else self._spawned

    @property
    def pid(self) -> int | None:
        """Of the process that runs, if one does."""
        return self._process.pid if self._process else None

    def cpu_seconds(self) -> float:
        """Processor time that the process has taken; 0 where none runs."""
        found = usage(self.pid) if self.pid else None
        return found.cpu_seconds if found else 0.0

    async def start(self) -> None:
        """Start anew and wait until it answers. A former process is killed first.

        Raises:
            ServerDown: it ended or was not ready in time.
        """
        await self.stop()
        self._process = await self._spawn()

    async def hand_over(self, prepare: Callable[[], Awaitable[None]]) -> None:
        """Start a second process, have it prepared (commands go to it meanwhile), then let the first one finish.

        Raises:
            Exception: whatever `prepare` or the start raised; then the first process goes on as if nothing had been.
        """
        former = self._process
        self._process = await self._spawn()
        try:
            await prepare()
        except BaseException:
            await self._process.kill()
            self._process = former
            raise
        if former is not None:
            await former.finish(FINISH_SECONDS)

    async def _spawn(self) -> ServerProcess:
        self._spawned += 1
        control = starting.control(self._control, self._spawned)
        begun, self._begun = self._begun, None
        started = begun or await starting.process(self._command, self._listener, control)
        process = ServerProcess(started, self._spawned)
        try:
            await process.connect(control, self._start_seconds)
        except BaseException:
            await process.kill()
            raise
        return process

    async def ask(self, command: Mapping[str, Any], seconds: float | None = None) -> dict[str, Any]:
        """One command, one answer.

        Raises:
            ServerDown: no answer in time, or the process ended.
            CommandRefused: `ok` was not true.
        """
        return await self._running().ask(command, seconds or self._hang_seconds)

    async def pulse(self, seconds: float) -> dict[str, Any]:
        """What the server measures, as a sign of life.

        Raises:
            ServerDown: it hung or ended.
        """
        return await self._running().figures(seconds)

    async def ended(self) -> None:
        """Wait for the end of the process."""
        if self._process is not None:
            await self._process.ended()

    async def stop(self) -> None:
        """Kill the process, if one runs, and wait for its end."""
        process, self._process = self._process, None
        if process is not None:
            await process.kill()

    async def finish(self) -> None:
        """Have the process answer what it has begun, and end; after `FINISH_SECONDS` it is killed."""
        process, self._process = self._process, None
        if process is not None:
            await process.finish(FINISH_SECONDS)

    def _running(self) -> ServerProcess:
        if self._process is None:
            raise ServerDown(Reason.CRASH_LOOP, "the server does not run", self._spawned)
        return self._process
