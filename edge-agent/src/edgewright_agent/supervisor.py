"""The server process, seen from its owner: listening socket, start, control commands, signs of life.

The socket outlives the process, so connections wait in its queue while a dead or hung server is replaced.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from edgewright_agent import tied
from edgewright_agent.channel import Channel, CommandRefused, ServerDown
from edgewright_agent.processes import Usage, usage
from edgewright_agent.settings import PREFIX
from edgewright_contract.conditions import Reason

__all__ = ["CommandRefused", "Server", "ServerDown", "listening_socket", "server_environment"]

_SECRETS: Final = ("API_TOKEN_FILE", "GATEWAY_TOKEN_FILE", "API_URL", "GATEWAY_URL", "ROOT_KEY_FILE")
_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""numpy would otherwise hold memory for a thread on each core, which nothing here uses."""
PATIENCE: Final = 5
"""A starved server gets at most so many times its deadline."""


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound socket with a queue; it stays open as long as the supervisor lives.

    Raises:
        OSError: the address is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((host, port))
    opened.listen(512)
    return opened


class Server:
    """One server process at a time on the same socket."""

    def __init__(
        self,
        listener: socket.socket,
        control: Path,
        *,
        start_seconds: float,
        hang_seconds: float,
        arguments: Sequence[str] = (),
        command: Sequence[str] | None = None,
    ) -> None:
        self._listener = listener
        self._control = control
        self._start_seconds = start_seconds
        self._hang_seconds = hang_seconds
        self._command = (*(command or tied.command("edgewright_agent.serving")), *arguments)
        self._process: asyncio.subprocess.Process | None = None
        self._commands, self._pulse = Channel(), Channel()
        self.generation = 0
        """Counts the starts, so that the news of a death is told from that of the next one."""

    @property
    def pid(self) -> int | None:
        """Of the process that runs, if one does."""
        return self._process.pid if self._process and self._process.returncode is None else None

    def cpu_seconds(self) -> float:
        """Processor time that the process has taken; 0 where none runs."""
        found = usage(self.pid) if self.pid else None
        return found.cpu_seconds if found else 0.0

    async def start(self) -> None:
        """Start anew and wait until it answers a ping. A former process is killed first.

        Raises:
            ServerDown: it ended or was not ready in time.
        """
        await self.stop()
        self.generation += 1
        self._commands, self._pulse = Channel(), Channel()  # who still waits on the old ones hears that they ended
        self._control.unlink(missing_ok=True)
        descriptor = self._listener.fileno()
        self._process = await asyncio.create_subprocess_exec(
            *(*self._command, "--fd", str(descriptor), "--control", str(self._control)),
            pass_fds=(descriptor,),
            stdin=asyncio.subprocess.DEVNULL,
            env=server_environment(os.environ),
        )
        try:
            async with asyncio.timeout(self._start_seconds):
                await self._connect()
        except TimeoutError:
            await self.stop()
            raise ServerDown(Reason.HANG, f"the server was not ready after {self._start_seconds:g} s") from None
        await self.ask({"op": "ping"})

    async def _connect(self) -> None:
        while True:
            if self.pid is None:
                raise ServerDown(Reason.CRASH_LOOP, f"the server {self._end()} while it started")
            with contextlib.suppress(OSError):
                await self._commands.open(self._control)
                await self._pulse.open(self._control)
                return
            await asyncio.sleep(0.02)

    async def ask(self, command: Mapping[str, Any], seconds: float | None = None) -> dict[str, Any]:
        """One command, one answer.

        Raises:
            ServerDown: no answer in time, or the process ended.
            CommandRefused: `ok` was not true.
        """
        generation = self.generation
        try:
            return await self._commands.ask(command, seconds or self._hang_seconds)
        except ServerDown as down:
            down.generation = generation
            raise

    async def pulse(self, seconds: float) -> dict[str, Any]:
        """What the server measures, as a sign of life: the deadline leaves out the time it waited for a processor.

        Raises:
            ServerDown: it hung or ended.
        """
        generation = self.generation
        try:
            return await self._figures(seconds)
        except ServerDown as down:
            down.generation = generation
            raise

    async def _figures(self, seconds: float) -> dict[str, Any]:
        process = self._process
        if process is None or process.returncode is not None:
            raise ServerDown(Reason.CRASH_LOOP, f"the server {self._end()}")
        before = usage(process.pid)
        asked = asyncio.ensure_future(self._pulse.ask({"op": "figures"}, PATIENCE * seconds))
        ended = asyncio.ensure_future(process.wait())
        try:
            waited = 0.0
            while waited < PATIENCE * seconds:
                await asyncio.wait({asked, ended}, timeout=seconds / 4, return_when=asyncio.FIRST_COMPLETED)
                if asked.done() or ended.done():
                    break
                waited += seconds / 4
                if waited - _starved(before, usage(process.pid)) >= seconds:
                    raise ServerDown(Reason.HANG, f"no sign of life for {waited:.1f} s")
            if ended.done() and not (asked.done() and asked.exception() is None):
                raise ServerDown(Reason.CRASH_LOOP, f"the server {self._end()}")
            return await asked
        except CommandRefused as error:
            raise ServerDown(Reason.CRASH_LOOP, f"figures: {error}") from None
        finally:
            for task in (asked, ended):
                task.cancel()
            await asyncio.gather(asked, ended, return_exceptions=True)

    async def ended(self) -> None:
        """Wait for the end of the process."""
        if self._process is not None:
            await self._process.wait()

    def _end(self) -> str:
        code = self._process.returncode if self._process else None
        return "does not run" if code is None else f"ended with {code}"

    async def stop(self) -> None:
        """Kill the process, if one runs, and wait for its end."""
        await self._commands.close()
        await self._pulse.close()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._process = None


def _starved(before: Usage | None, now: Usage | None) -> float:
    return max(0.0, now.waited_seconds - before.waited_seconds) if before and now else 0.0


def server_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What the server inherits: everything but the ways to tokens, API server and gateway."""
    hidden = {PREFIX + name for name in _SECRETS}
    return {**_ONE_THREAD, **{name: value for name, value in environment.items() if name not in hidden}}
