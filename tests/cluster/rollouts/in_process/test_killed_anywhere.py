"""The operator killed after its n-th write, for every n, in rollouts of five waves over 50 nodes: always the same end.

In process, at the client's border, with a one-second Lease. One history follows the other on the same nodes: a version
is promoted, the next one is refused in the third wave and rolled back, and so on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

STAGES = 6


def _manifest(version: int) -> str:
    return f"sha256:{version:064x}"


def _promoted(version: int) -> Callable[[Any], bool]:
    def reached(world: Any) -> bool:
        good = (world.model.get("lastGood") or {}).get("version") == version
        return good and set(world.exposed.values()) == {_manifest(version)} and _holds(world, "Ready")

    return reached


def _aborted(version: int, good: int) -> Callable[[Any], bool]:
    def reached(world: Any) -> bool:
        condemned = [entry["manifest"] for entry in world.model.get("quarantined") or []]
        back = set(world.exposed.values()) == {_manifest(good)}
        return _manifest(version) in condemned and back and _holds(world, "Stalled")

    return reached


def _holds(world: Any, kind: str) -> bool:
    return any(entry["type"] == kind and entry["status"] == "True" for entry in world.model.get("conditions") or [])


def _outcomes(world: Any, version: int) -> list[str]:
    return [entry["outcome"] for entry in world.model["history"] if entry["version"] == version]


class Chain:
    """Promotions and aborts by turns on one stage; an operator that lives through one goes on with the next."""

    def __init__(self, stage: Any, process: Callable[[Any, Any], Any], world: Any) -> None:
        self.stage, self.begin, self.world = stage, process, world
        self.process = process(stage, world)
        self.version = self.good = 0

    async def promote(self, lives: int | None) -> bool:
        self.version += 1
        killed = await self._step(_promoted(self.version), lives)
        self.good = self.version
        assert _outcomes(self.world, self.version) == ["Promoted"]
        return killed

    async def abort(self, lives: int | None) -> bool:
        self.version += 1
        self.stage.bad = _manifest(self.version)
        self.stage.accepted.clear()
        killed = await self._step(_aborted(self.version, self.good), lives)
        assert self.world.model["lastGood"]["version"] == self.good
        assert "Promoted" not in _outcomes(self.world, self.version)
        return killed

    async def rest(self) -> None:
        """Whoever decides anew what has been decided writes nothing."""
        written = -1
        while written < len(self.world.writes):  # what follows from the last step, such as that it is in quarantine now
            written = len(self.world.writes)
            await asyncio.sleep(2.0)
        await self.process.end()
        self.process = self.begin(self.stage, self.world)
        async with asyncio.timeout(30):
            while not self.process.election.term:  # noqa: ASYNC110 - it asks a plain value
                await asyncio.sleep(0.1)
        await asyncio.sleep(2.0)  # several rounds
        await self.process.end()
        assert self.world.writes[written:] == []

    async def _step(self, wanted: Callable[[Any], bool], lives: int | None) -> bool:
        self.stage.shelf.number = self.version
        killed = bool(await self.process.until(wanted, lives))
        if killed:
            await self.process.end()
            self.process = self.begin(self.stage, self.world)
            await self.process.until(wanted)
        assert self.world.broken == []
        return killed


@pytest.mark.timeout(900)  # a minute and a half on two idle cores
async def test_a_kill_after_any_write_changes_nothing_but_the_time(
    stages: Callable[[], Any], processes: Any, worlds: Any
) -> None:
    points: Iterator[int] = iter(range(1, 1000))
    ended: dict[str, int] = {}

    async def histories(which: str) -> None:
        async with stages() as stage:
            chain = Chain(stage, processes, worlds(stage))
            await chain.promote(None)
            for n in points:
                promoted, aborted = await chain.promote(n), await chain.abort(n)
                if not promoted and not aborted:  # it had fewer writes than n
                    break
            ended[which] = n
            await chain.rest()

    await asyncio.gather(*(histories(str(number)) for number in range(STAGES)))
    assert min(ended.values()) > 50  # every node's move was one of the points
