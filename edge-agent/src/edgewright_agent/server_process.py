"""One server process from exec to end: its two control connections, its signs of life, its death."""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edgewright_agent.channel import Channel, CommandRefused, ServerDown
from edgewright_agent.processes import Usage, usage
from edgewright_contract.conditions import Reason

PATIENCE: Final = 5
"""A starved server gets at most so many times its deadline."""


class ServerProcess:
    """Commands and signs of life go over connections of their own, so that a long command hides no hang."""

    def __init__(self, process: asyncio.subprocess.Process, generation: int) -> None:
        self._process = process
        self._commands, self._pulse = Channel(), Channel()
        self.generation = generation
        """Which process of its owner this is."""

    @property
    def pid(self) -> int | None:
        """None where it has ended."""
        return self._process.pid if self._process.returncode is None else None

    async def connect(self, control: Path, seconds: float) -> None:
        """Wait until it answers a ping.

        Raises:
            ServerDown: it ended or was not ready in time.
        """
        try:
            async with asyncio.timeout(seconds):
                while self.pid is not None:
                    with contextlib.suppress(OSError):
                        await self._commands.open(control)
                        await self._pulse.open(control)
                        await self.ask({"op": "ping"}, seconds)
                        return
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise self._down(Reason.HANG, f"the server was not ready after {seconds:g} s") from None
        raise self._down(Reason.CRASH_LOOP, f"the server {self._end()} while it started")

    async def ask(self, command: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """One command, one answer.

        Raises:
            ServerDown: no answer in time, or the process ended.
            CommandRefused: `ok` was not true.
        """
        try:
            return await self._commands.ask(command, seconds)
        except ServerDown as down:
            down.generation = self.generation
            raise

    async def figures(self, seconds: float) -> dict[str, Any]:
        """What it measures, as a sign of life: the deadline leaves out the time it waited for a processor.

        Raises:
            ServerDown: it hung or ended.
        """
        asked = asyncio.ensure_future(self._pulse.ask({"op": "figures"}, PATIENCE * seconds))
        ended = asyncio.ensure_future(self._process.wait())
        try:
            await self._until_done(asked, ended, seconds)
            if ended.done() and not (asked.done() and asked.exception() is None):
                raise self._down(Reason.CRASH_LOOP, f"the server {self._end()}")
            return await asked
        except CommandRefused as error:
            raise self._down(Reason.CRASH_LOOP, f"figures: {error}") from None
        except ServerDown as down:
            down.generation = self.generation
            raise
        finally:
            for task in (asked, ended):
                task.cancel()
            await asyncio.gather(asked, ended, return_exceptions=True)

    async def _until_done(self, asked: "asyncio.Future[Any]", ended: "asyncio.Future[int]", seconds: float) -> None:
        before, waited = usage(self._process.pid), 0.0
        while waited < PATIENCE * seconds:
            await asyncio.wait({asked, ended}, timeout=seconds / 4, return_when=asyncio.FIRST_COMPLETED)
            if asked.done() or ended.done():
                return
            waited += seconds / 4
            if waited - _starved(before, usage(self._process.pid)) >= seconds:
                raise self._down(Reason.HANG, f"no sign of life for {waited:.1f} s")

    async def ended(self) -> None:
        """Wait for its end."""
        await self._process.wait()

    async def kill(self) -> None:
        """End it at once."""
        await self._commands.close()
        await self._pulse.close()
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def finish(self, seconds: float) -> None:
        """Let it answer what it has begun; after so long it is killed."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._process.wait()
        await self.kill()

    def _end(self) -> str:
        code = self._process.returncode
        return "does not answer" if code is None else f"ended with {code}"

    def _down(self, reason: Reason, message: str) -> ServerDown:
        return ServerDown(reason, message, self.generation)


def _starved(before: Usage | None, now: Usage | None) -> float:
    return max(0.0, now.waited_seconds - before.waited_seconds) if before and now else 0.0
