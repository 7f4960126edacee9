"""Every file operation of install, swap, rollback and collection: killed there, refused there, forgotten there.

After each the node serves old or new, never none, never unverified, and converges alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from edgewright_agent import events
from edgewright_contract.conditions import ConditionType, Reason
from edgewright_contract.edgenode import Assignment, ModelState

NAME = "default/nilm"
LIMIT = 400


@dataclass(frozen=True)
class Scenario:
    """From a folder that `prepare` left, `act` changes it; afterwards one of `serves` answers, at last `ends`."""

    prepare: Callable[[Any], Awaitable[None]]
    act: Callable[[Any, Any, Any], Awaitable[None]]
    serves: tuple[str | None, ...]
    wish: Assignment
    ends: str
    """Manifest."""


async def _walk(world: Any, *wishes: Assignment) -> None:
    agent, _ = world.agent()
    await agent.start()
    for wish in wishes:
        assert await agent.once(world.spec(wish))
        agent.ledger.apply(NAME, events.Ticked(601))


def _scenarios(world: Any) -> dict[str, Scenario]:
    one, two, three = (world.published.release(number) for number in (1, 2, 3))
    later = world.published.trust(2)

    async def nothing(world: Any) -> None:
        world.folder.mkdir(exist_ok=True)

    async def first(world: Any) -> None:
        await _walk(world, one)

    async def first_two(world: Any) -> None:
        await _walk(world, one, two)

    async def trial_of_two(world: Any) -> None:
        await _walk(world, one)
        agent, _ = world.agent()
        await agent.start()
        assert await agent.once(world.spec(two))

    def install(wish: Assignment, trust: str | None = None) -> Callable[[Any, Any, Any], Awaitable[None]]:
        async def act(world: Any, agent: Any, server: Any) -> None:
            await agent.start()
            spec = world.spec(wish)
            await agent.once(spec.model_copy(update={"trust": trust}) if trust else spec)

        return act

    async def revert(world: Any, agent: Any, server: Any) -> None:
        await agent.start()
        await agent.keeper._revert(NAME, events.Unhealthy(Reason.INFERENCE_ERRORS, "9 of 9 windows failed"))
        await agent.once(world.spec(two))

    return {
        "install": Scenario(nothing, install(one), (None, one.manifest), one, one.manifest),
        "swap": Scenario(first, install(two), (one.manifest, two.manifest), two, two.manifest),
        "swap and collection": Scenario(
            first_two, install(three), (two.manifest, three.manifest), three, three.manifest
        ),
        "swap under new trust": Scenario(first, install(two, later), (one.manifest, two.manifest), two, two.manifest),
        "revert": Scenario(trial_of_two, revert, (one.manifest, two.manifest), two, one.manifest),
        "rollback": Scenario(first_two, install(one), (one.manifest, two.manifest), one, one.manifest),
    }


NAMES = ("install", "swap", "swap and collection", "swap under new trust", "revert", "rollback")


async def _check(world: Any, scenario: Scenario, folder: Path, where: str) -> None:
    """A new process, first without a network, then with one."""
    online, world.handler = world.handler, lambda request: httpx2.Response(503)
    agent, server = world.agent(folder)
    await agent.start()
    assert server.live.get(NAME) in scenario.serves, where
    world.handler = online
    for _ in range(4):
        if await agent.once(world.spec(scenario.wish)):
            break
    if agent.ledger.record(NAME).live and agent.ledger.record(NAME).live.assignment == scenario.wish:
        assert server.live == {NAME: scenario.wish.manifest}, where
    else:
        assert server.live == {NAME: scenario.ends}, where
        assert agent.ledger.record(NAME).state is ModelState.REVERTED, where


async def _interrupted(world: Any, scenario: Scenario, folder: Path, disk: Any, cut: type[BaseException]) -> bool:
    agent, server = world.agent(folder, disk.ops())
    try:
        await scenario.act(world, agent, server)
    except cut:
        return True
    except OSError:
        return False
    return False


async def _prepared(world: Any, name: str) -> tuple[Scenario, Path]:
    scenario = _scenarios(world)[name]
    await scenario.prepare(world)
    base = world.folder.rename(world.folder.with_name("base"))
    return scenario, base


@pytest.mark.parametrize("name", NAMES)
async def test_killed_at_every_operation(world: Any, faulty: Any, power_cut: type[BaseException], name: str) -> None:
    scenario, base = await _prepared(world, name)
    for number in range(1, LIMIT):
        folder = world.folder.with_name(f"{number}")
        shutil.copytree(base, folder)
        disk = faulty(folder)
        disk.fault_at = number
        cut = await _interrupted(world, scenario, folder, disk, power_cut)
        await _check(world, scenario, folder, f"{name}, operation {number}: {disk.calls[-1]}")
        shutil.rmtree(folder)
        if not cut:
            break
    print(f"{name}: {number - 1} operations")
    assert {"create", "write", "fsync file", "fsync folder", "rename"} <= set(disk.calls)
    assert number > 10


@pytest.mark.parametrize("name", ["install", "swap and collection", "revert"])
async def test_what_a_power_loss_leaves_at_every_operation(
    world: Any, faulty: Any, power_cut: type[BaseException], name: str
) -> None:
    scenario, base = await _prepared(world, name)
    assert await _first_loss(world, scenario, base, faulty, power_cut, None) is None


@pytest.mark.parametrize(
    "site", [("replace_file", "file"), ("replace_file", "folder"), ("adopt_part", "file"), ("adopt_part", "folder")]
)
async def test_each_flush_is_needed(
    world: Any, faulty: Any, power_cut: type[BaseException], site: tuple[str, str]
) -> None:
    scenario, base = await _prepared(world, "swap and collection")
    assert await _first_loss(world, scenario, base, faulty, power_cut, site) is not None, "nobody would miss it"


async def _first_loss(
    world: Any,
    scenario: Scenario,
    base: Path,
    faulty: Any,
    power_cut: type[BaseException],
    skip: tuple[str, str] | None,
) -> str | None:
    """The first power loss after which the node does not do what it promises; the last one is after the end."""
    for number in range(1, LIMIT):
        folder, after = world.folder.with_name("run"), world.folder.with_name("after")
        shutil.copytree(base, folder)
        disk = faulty(folder)
        disk.fault_at, disk.skip = number, skip
        cut = await _interrupted(world, scenario, folder, disk, power_cut)
        for early in itertools.product([False, True], repeat=2):
            folders = {path for path, taken in zip((folder, folder / "blobs"), early, strict=True) if taken}
            disk.after_power_loss(after, folders)
            try:
                if not cut:  # what was reported as reached must have been reached for good
                    agent, _ = world.agent(after)
                    await agent.start()
                    assert agent.ledger.record(NAME).live.assignment.manifest == scenario.ends
                await _check(world, scenario, after, "")
            except Exception as error:
                return f"operation {number}, {disk.calls[-1]}: {error!r}"
            finally:
                shutil.rmtree(after)
        shutil.rmtree(folder)
        if not cut:
            return None
    raise AssertionError("the scenario does not end")


async def _killed_for_real(world: Any, scenario: Scenario, faulty: Any, when: Callable[[str, int], bool]) -> bool:
    """Act in a process of its own on the real file system, which dies by SIGKILL at an operation; whether it did."""
    child = os.fork()
    if child == 0:
        disk = faulty(world.folder)

        def step(called: str) -> None:
            disk.calls.append(called)
            if when(called, len(disk.calls)):
                os.kill(os.getpid(), signal.SIGKILL)

        disk._step = step
        try:
            asyncio._set_running_loop(None)
            agent, server = world.agent(world.folder, replace(disk.ops(), fsync=_flushed(disk)))
            asyncio.new_event_loop().run_until_complete(scenario.act(world, agent, server))
        finally:
            os._exit(0)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    return os.WIFSIGNALED(status)


def _flushed(disk: Any) -> Callable[[int], None]:
    def fsync(descriptor: int) -> None:
        disk._fsync(descriptor)
        os.fsync(descriptor)

    return fsync


@pytest.mark.parametrize("kind", ["create", "write", "fsync file", "fsync folder", "rename", "unlink"])
async def test_a_real_kill_for_each_kind_of_operation(world: Any, faulty: Any, kind: str) -> None:
    scenario, base = await _prepared(world, "swap and collection")
    shutil.copytree(base, world.folder)
    assert await _killed_for_real(world, scenario, faulty, lambda called, count: called == kind and count > 12)
    await _check(world, scenario, world.folder, kind)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NAMES)
async def test_a_real_kill_at_every_operation(world: Any, faulty: Any, name: str) -> None:
    scenario, base = await _prepared(world, name)
    for number in range(1, LIMIT):
        shutil.rmtree(world.folder, ignore_errors=True)
        shutil.copytree(base, world.folder)
        killed = await _killed_for_real(world, scenario, faulty, lambda _, count, number=number: count == number)
        await _check(world, scenario, world.folder, f"{name}, operation {number}")
        if not killed:
            break
    print(f"{name}: {number - 1} real kills")
    assert number > 10


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("name", ["swap and collection", "revert"])
async def test_a_disk_that_refuses_one_operation(
    world: Any, faulty: Any, power_cut: type[BaseException], name: str, code: int
) -> None:
    scenario, base = await _prepared(world, name)

    def refuse() -> None:
        raise OSError(code, os.strerror(code))

    for number in range(1, LIMIT):
        folder = world.folder.with_name(f"{number}")
        shutil.copytree(base, folder)
        disk = faulty(folder)
        disk.fault_at, disk.fault = number, refuse
        agent, server = world.agent(folder, disk.ops())
        with_fault = f"{name}, {disk.calls[-1:]} {number}"
        with contextlib.suppress(OSError):
            await scenario.act(world, agent, server)
        assert server.live.get(NAME) in scenario.serves, "from memory, whatever the disk says"
        for _ in range(4):
            if await agent.once(world.spec(scenario.wish)):
                break
        assert server.live[NAME] == scenario.ends, f"the same process recovers: {with_fault}"
        await _check(world, scenario, folder, with_fault)
        shutil.rmtree(folder)
        if len(disk.calls) < number:
            break
    assert number > 10


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS])
async def test_a_disk_that_refuses_everything_is_told_and_served_through(world: Any, faulty: Any, code: int) -> None:
    scenario, base = await _prepared(world, "swap")
    base.rename(world.folder)
    disk = faulty(world.folder)

    def refuse(called: str) -> None:
        raise OSError(code, os.strerror(code))

    disk._step = refuse
    agent, server = world.agent(world.folder, disk.ops())
    await agent.start()
    settled = await agent.once(world.spec(scenario.wish))
    assert not settled
    assert server.live.get(NAME) == scenario.serves[0]
    await agent._teller._write()
    conditions = {entry["type"]: entry for entry in world.kube.told[-1]["conditions"]}
    full = code == errno.ENOSPC
    stated = conditions[ConditionType.STORAGE_OK]
    assert (stated["status"], stated["reason"]) == ("False", "InsufficientStorage" if full else "StorageError")
    assert conditions[ConditionType.READY]["status"] == "True"
    disk._step = lambda called: None
    assert await agent.once(world.spec(scenario.wish))
    await agent._teller._write()
    assert all(entry["status"] == "True" for entry in world.kube.told[-1]["conditions"])


@pytest.mark.parametrize("year", [1970, 2016, 2036])
async def test_a_clock_that_is_wrong_installs_and_serves(world: Any, year: int) -> None:
    signed = int(datetime(2026, 5, 1, tzinfo=UTC).timestamp())
    world.now = datetime(year, 1, 2, tzinfo=UTC)
    wish = world.published.release(1, signed)
    agent, server = world.agent()
    await agent.start()
    assert await agent.once(world.spec(wish))
    assert server.live == {NAME: wish.manifest}


async def test_a_clock_at_1970_does_not_bring_an_expired_release_back(world: Any) -> None:
    signed = int(datetime(2026, 5, 1, tzinfo=UTC).timestamp())
    world.now = datetime(1970, 1, 2, tzinfo=UTC)
    agent, _ = world.agent()
    await agent.start()
    await agent.once(world.spec(world.published.release(1, signed)))
    await agent.once(world.spec(world.published.release(2, signed + 1, notAfter=signed - 1)))
    assert agent.ledger.record(NAME).reason == Reason.EXPIRED
