"""Start of the server process. Imports nothing heavy: a server can be begun before the supervisor imports the rest.

The two import for about as long as each other, on two cores side by side instead of one after the other.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgewright_agent import tied

PREFIX: Final = "EDGEWRIGHT_AGENT_"
DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8080
CONTROL_SOCKET: Final = "control.sock"
LOCK_FILE: Final = "lock"

_SECRETS: Final = ("API_TOKEN_FILE", "GATEWAY_TOKEN_FILE", "API_URL", "GATEWAY_URL", "ROOT_KEY_FILE")
_LIBRARIES: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
"""numpy would otherwise hold memory for a thread on each core, which nothing here uses, and ONNX Runtime would keep a
thread and files with which it reports how it is used."""


class FolderInUse(OSError):
    """Another agent works in this folder."""


@dataclass(frozen=True)
class Begun:
    """What the agent holds as long as it runs, and the first server process where that was begun already."""

    lock: int
    listener: socket.socket
    process: asyncio.subprocess.Process | None = None

    def close(self) -> None:
        """Let go of folder and socket, and end the process if it still runs."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        self.listener.close()
        os.close(self.lock)


def hold(folder: Path, host: str, port: int) -> Begun:
    """Keep other agents out of the folder and open the socket that is served on; both end with this process.

    Raises:
        FolderInUse: another agent works in the folder.
        OSError: the folder cannot be written, or the address is taken.
    """
    lock = locked(folder)
    try:
        return Begun(lock, listening_socket(host, port))
    except BaseException:
        os.close(lock)
        raise


async def ahead(environment: Mapping[str, str]) -> Begun | None:
    """Begin the first server before the settings are judged; none where they do not allow it: the judge says why."""
    folder = Path(environment.get(f"{PREFIX}STATE_DIR", ""))
    if not folder.name or not folder.is_dir():
        return None
    try:
        port = int(environment.get(f"{PREFIX}PORT") or DEFAULT_PORT)
        held = hold(folder, environment.get(f"{PREFIX}HOST") or DEFAULT_HOST, port)
    except (OSError, ValueError, OverflowError):
        return None
    try:
        begun = await process(server_command(folder), held.listener, control(folder / CONTROL_SOCKET, 1))
    except OSError:
        held.close()
        return None
    return Begun(held.lock, held.listener, begun)


def control(path: Path, generation: int) -> Path:
    """Control socket of the server of this generation: two names, because two may run for a moment."""
    return path.with_name(f"{path.stem}{generation % 2}{path.suffix}")


def server_command(folder: Path) -> tuple[str, ...]:
    """Command line of a server that keeps its readings below the folder; socket and control path follow."""
    return (*tied.command("edgewright_agent.serving"), "--hold", "--history", str(folder / "history"))


async def process(command: Sequence[str], listener: socket.socket, path: Path) -> asyncio.subprocess.Process:
    """Start the server process on this listening socket; it will answer at the control path."""
    path.unlink(missing_ok=True)
    return await asyncio.create_subprocess_exec(
        *(*command, "--fd", str(listener.fileno()), "--control", str(path)),
        pass_fds=(listener.fileno(),),
        stdin=asyncio.subprocess.DEVNULL,
        env=server_environment(os.environ),
    )


def locked(folder: Path) -> int:
    """Keep other agents out as long as this process lives; the descriptor that holds the lock.

    Raises:
        FolderInUse: another agent works in this folder.
    """
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise FolderInUse(f"{folder}: another agent works here; end it, or give this one a folder") from None
    return descriptor


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound socket with a queue; it stays open as long as the supervisor lives.

    Raises:
        OSError: the address is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen(512)
    except BaseException:
        opened.close()
        raise
    return opened


def server_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What the server inherits: everything but the ways to tokens, API server and gateway."""
    hidden = {PREFIX + name for name in _SECRETS}
    return {**_LIBRARIES, **{name: value for name, value in environment.items() if name not in hidden}}
