"""A real file system that is full, out of inodes or read-only: what serves goes on, and space brings recovery."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgewright_agent import events
from edgewright_agent.store import Store
from edgewright_contract.conditions import Reason

NAME = "default/nilm"


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a tmpfs with these options; gives its folder."""
    folders: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"disk{len(folders)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "edgewright-test", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("a small file system cannot be mounted here: needs root with CAP_SYS_ADMIN")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def _on(world: Any, folder: Path) -> tuple[Any, Any]:
    world.folder = folder / "state"
    agent, server = world.agent()
    await agent.start()
    assert await agent.once(world.spec(world.published.release(1)))
    agent.ledger.apply(NAME, events.Ticked(601))
    return agent, server


def _remount(folder: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(folder)], check=True)


def _fill(folder: Path, keep: int) -> Path:
    """All but `keep` bytes."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(max(0, file.tell() - keep))
    return ballast


async def _survives(world: Any, agent: Any, server: Any, wish: Any) -> bool:
    """Whether the new release could be installed; either way something serves, here and after a restart."""
    await agent.once(world.spec(wish))
    assert server.live[NAME] in (world.old, wish.manifest)
    again, restarted = world.agent()
    await again.start()
    assert restarted.live[NAME] in (world.old, wish.manifest)
    return bool(server.live[NAME] == wish.manifest)


async def test_too_little_room_is_told_and_what_serves_goes_on(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, server = world.agent()
    await agent.start()
    assert await agent.once(world.spec(world.published.release(1)))
    agent.ledger.apply(NAME, events.Ticked(601))
    old, wish = server.live[NAME], world.published.release(2)
    with monkeypatch.context() as full:
        full.setattr(Store, "free_bytes", lambda self: 10)
        assert not await agent.once(world.spec(wish))
        record = agent.ledger.record(NAME)
        assert record.reason == Reason.INSUFFICIENT_STORAGE
        assert "10 bytes free" in record.message
        assert server.live[NAME] == old
    assert await agent.once(world.spec(wish))
    assert server.live[NAME] == wish.manifest


async def test_no_download_begins_without_room_for_all_of_it(world: Any, mounted: Callable[[str], Path]) -> None:
    world.folder = mounted("size=4m") / "state"
    agent, _ = world.agent()
    await agent.start()
    assert not await agent.once(world.spec(world.published.release(1)))
    record = agent.ledger.record(NAME)
    assert (record.reason, record.state.value) == (Reason.INSUFFICIENT_STORAGE, "Pending")
    assert "bytes free" in record.message


async def test_full_at_every_page_of_an_install(
    world: Any, mounted: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "free_bytes", lambda self: 1 << 40)  # as if somebody else filled it meanwhile
    installed = []
    for keep in range(0, 15 * 4096, 4096):
        folder = mounted("size=512k")
        agent, server = await _on(world, folder)
        world.old = agent.ledger.record(NAME).live.assignment.manifest
        wish = world.published.release(2)
        ballast = _fill(folder, keep)
        installed.append(await _survives(world, agent, server, wish))
        if not installed[-1]:
            assert agent.ledger.problem or agent.ledger.record(NAME).reason == Reason.INSUFFICIENT_STORAGE
        ballast.unlink()
        assert await agent.once(world.spec(wish)), "it recovers alone"
        assert server.live[NAME] == wish.manifest
    assert installed[0] is False
    assert installed[-1] is True
    assert installed == sorted(installed), "more room never installs less"


async def test_out_of_inodes(world: Any, mounted: Callable[[str], Path]) -> None:
    folder = mounted("size=8m,nr_inodes=40")
    agent, server = await _on(world, folder)
    world.old = agent.ledger.record(NAME).live.assignment.manifest
    made = []
    for number in range(100):
        try:
            (folder / f"ballast{number}").touch()
        except OSError:
            break
        made.append(folder / f"ballast{number}")
    wish = world.published.release(2)
    assert not await _survives(world, agent, server, wish)
    problem = agent.ledger.problem
    reasons = {agent.ledger.record(NAME).reason, problem.reason.value if problem else ""}
    assert Reason.INSUFFICIENT_STORAGE.value in reasons
    for path in made:
        path.unlink()
    assert await agent.once(world.spec(wish))
    assert server.live[NAME] == wish.manifest


async def test_remounted_read_only(world: Any, mounted: Callable[[str], Path]) -> None:
    folder = mounted("size=8m")
    agent, server = await _on(world, folder)
    world.old = agent.ledger.record(NAME).live.assignment.manifest
    wish = world.published.release(2)
    _remount(folder, "ro")
    assert not await _survives(world, agent, server, wish)
    assert agent.ledger.problem.reason is Reason.STORAGE_ERROR
    _remount(folder, "rw")
    assert await agent.once(world.spec(wish))
    assert server.live[NAME] == wish.manifest
    assert agent.ledger.problem is None
