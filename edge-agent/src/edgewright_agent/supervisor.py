"""The server process, seen from its owner: listening socket, start, control commands, watchdog.

The socket outlives the process, so connections wait in its queue while a dead or hung server is replaced.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from edgewright_agent.settings import PREFIX
from edgewright_contract.conditions import Reason

_COMMAND: Final = (sys.executable, "-m", "edgewright_agent.serving")
_SECRETS: Final = ("API_TOKEN_FILE", "GATEWAY_TOKEN_FILE", "API_URL", "GATEWAY_URL", "ROOT_KEY_FILE")
_LINE_LIMIT: Final = 1024 * 1024


class ServerDown(Exception):
    """The server died, hung or did not start; the reason is for the record of the model on trial."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class CommandRefused(Exception):
    """The server lives and said no."""


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
        command: Sequence[str] = _COMMAND,
    ) -> None:
        self._listener = listener
        self._control = control
        self._start_seconds = start_seconds
        self._hang_seconds = hang_seconds
        self._command = tuple(command)
        self._process: asyncio.subprocess.Process | None = None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Of the process that runs, if one does."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Start anew and wait until it answers a ping. A former process is killed first.

        Raises:
            ServerDown: it ended or was not ready in time.
        """
        await self.stop()
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
                code = self._process.returncode if self._process else None
                raise ServerDown(Reason.CRASH_LOOP, f"the server ended with {code} while it started")
            with contextlib.suppress(OSError):
                self._streams = await asyncio.open_unix_connection(self._control, limit=_LINE_LIMIT)
                return
            await asyncio.sleep(0.05)

    async def ask(self, command: Mapping[str, Any], seconds: float | None = None) -> dict[str, Any]:
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
                async with asyncio.timeout(seconds or self._hang_seconds):
                    writer.write(json.dumps(command, separators=(",", ":")).encode() + b"\n")
                    await writer.drain()
                    line = await reader.readline()
                answer = json.loads(line) if line.endswith(b"\n") else None
            except TimeoutError:
                await self._disconnect()  # a late answer must not be taken for the next one's
                raise ServerDown(Reason.HANG, f"no answer to {command['op']}") from None
            except (OSError, ValueError) as error:
                await self._disconnect()
                raise ServerDown(Reason.CRASH_LOOP, f"{command['op']}: {error}") from None
        if not isinstance(answer, dict):
            await self._disconnect()
            raise ServerDown(Reason.CRASH_LOOP, f"the server ended during {command['op']}")
        if answer.get("ok") is False or "error" in answer:
            raise CommandRefused(str(answer.get("error") or answer.get("message") or f"{command['op']} was refused"))
        return answer

    async def stop(self) -> None:
        """Kill the process, if one runs, and wait for its end."""
        await self._disconnect()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._process = None

    async def _disconnect(self) -> None:
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
            with contextlib.suppress(OSError):
                await streams[1].wait_closed()


def server_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What the server inherits: everything but the ways to tokens, API server and gateway."""
    hidden = {PREFIX + name for name in _SECRETS}
    return {name: value for name, value in environment.items() if name not in hidden}
