"""The first server is begun before the supervisor's own imports, and taken over by it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edgewright_agent.starting import CONTROL_SOCKET, PREFIX, ahead, locked, server_command
from edgewright_agent.supervisor import Server


async def test_the_server_that_was_begun_is_the_one_that_is_used(tmp_path: Path) -> None:
    begun = await ahead({f"{PREFIX}STATE_DIR": str(tmp_path), f"{PREFIX}PORT": "0"})
    assert begun is not None
    assert begun.process is not None
    command = server_command(tmp_path)
    server = Server(
        begun.listener,
        tmp_path / CONTROL_SOCKET,
        start_seconds=60,
        hang_seconds=10,
        command=command,
        begun=begun.process,
    )
    try:
        await server.start()
        assert (server.pid, server.generation) == (begun.process.pid, 1)
        assert (await server.pulse(10))["models"] == {}
        await server.start()
        assert server.pid not in (None, begun.process.pid), "another start means another process"
    finally:
        await server.stop()
        begun.close()
    assert begun.process.returncode is not None
    os.close(locked(tmp_path))


@pytest.mark.parametrize("wrong", ["no folder", "no port", "taken address", "folder in use"])
async def test_what_cannot_be_begun_is_left_to_the_judge_of_the_settings(tmp_path: Path, wrong: str) -> None:
    given = {f"{PREFIX}STATE_DIR": str(tmp_path), f"{PREFIX}PORT": "0"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        held = locked(tmp_path) if wrong == "folder in use" else None
        changes = {
            "no folder": {f"{PREFIX}STATE_DIR": str(tmp_path / "none")},
            "no port": {f"{PREFIX}PORT": "http"},
            "taken address": {f"{PREFIX}PORT": str(taken.getsockname()[1])},
            "folder in use": {},
        }
        assert await ahead(given | changes[wrong]) is None
        if held is not None:
            os.close(held)
    os.close(locked(tmp_path))  # nothing holds it


def test_settings_that_do_not_fit_end_the_server_that_was_begun(tmp_path: Path) -> None:
    environment = {**os.environ, f"{PREFIX}STATE_DIR": str(tmp_path), f"{PREFIX}PORT": "0"}
    command = [sys.executable, "-m", "edgewright_agent.main", "run"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert f"{PREFIX}NODE: Field required" in ended.stderr
    assert "Traceback" not in ended.stderr
    serving = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in _words(path)]
    assert serving == []


def _words(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""
