"""Random faults between the operator and the API server while a version is promoted and the next one is aborted.

Drops, lost answers, 409, 410, 429, 500, lists of earlier, silent and short watches, late writes. What went through is
recorded at the proxy; whatever happens, no exposure is above the wave, and once the faults end so does the rollout.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient, Configuration

from edgewright_contract import names

SHARE = 0.1
"""Of the requests that meet a fault."""
SECONDS = 4.0
READS = ("DROP", "CUT", "GONE", "BUSY", "BROKEN", "STALE", "STALL")
WRITES = ("DROP", "CUT", "CONFLICT", "BUSY", "BROKEN", "STALL", "LATE")
WATCHES = ("DROP", "GONE", "SHORT", "STALL")


def _manifest(version: int) -> str:
    return f"sha256:{version:064x}"


def _done(world: Any, good: int, bad: int = 0) -> bool:
    condemned = [entry["manifest"] for entry in world.model.get("quarantined") or []]
    served = set(world.exposed.values()) == {_manifest(good)}
    return (
        served
        and (world.model.get("lastGood") or {}).get("version") == good
        and (not bad or _manifest(bad) in condemned)
    )


def _into(recorded: Any) -> Callable[[Any, int], None]:
    """Records what went through, in the order in which the API server answered."""

    def answered(seen: Any, code: int) -> None:
        if seen.writes and code < 300 and f"/namespaces/{names.NAMESPACE}/leases" not in seen.path:
            recorded.wrote(seen.method, seen.path, json.loads(seen.body))

    return answered


def _by(proxy: Any, stage: Any) -> Configuration:
    return Configuration(host=proxy.url, api_key={"BearerToken": f"Bearer {stage.plane.token}"})


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_faults_delay_a_rollout_and_change_nothing_else(
    stages: Callable[[], Any], processes: Any, worlds: Any, proxied: Callable[[], Any], faults: Any, seed: int
) -> None:
    rng, proxy = random.Random(seed), proxied()
    until = [0.0]

    def fault(seen: Any) -> Any:
        elects = "/leases/election-" in seen.path or (seen.method == "POST" and seen.path.endswith("/leases"))
        if time.monotonic() > until[0] or elects or rng.random() > SHARE:
            return None
        kinds = WATCHES if seen.watches else WRITES if seen.writes else READS
        return faults[rng.choice(kinds)]

    async with stages() as stage:
        recorded, world = worlds(stage), worlds(stage)
        proxy.fault, proxy.answered = fault, _into(recorded)
        async with ApiClient(_by(proxy, stage)) as client:
            process = processes(stage, world, client, resync_seconds=3.0)
            for good, bad in ((1, 0), (1, 2), (3, 0)):
                until[0] = time.monotonic() + SECONDS
                stage.bad = _manifest(bad) if bad else ""
                stage.accepted.clear()
                stage.shelf.number = bad or good
                await process.until(lambda _, good=good, bad=bad: _done(recorded, good, bad))
            await process.end()
    assert recorded.broken == []
    assert [entry["outcome"] for entry in recorded.model["history"] if entry["version"] in (1, 3)].count(
        "Promoted"
    ) == 2


class Wave:
    """Of the third wave's moves, the first is held up on its way, and the second fails once others were refused."""

    def __init__(self, recorded: Any, bad: str) -> None:
        self.recorded, self.bad = recorded, bad
        self.slow = self.broken = ""

    def held(self, seen: Any) -> bool:
        if seen.method != "PATCH" or self.bad.encode() not in seen.body:
            return False
        before = [path for path in (self.slow, self.broken) if path]
        if len(before) < 2 and seen.path not in before and self._exposed() >= 5:
            self.slow, self.broken = self.slow or seen.path, seen.path if self.slow else ""
        if seen.path == self.slow:
            return not self._condemned() and time.monotonic() < seen.at + SECONDS
        return seen.path == self.broken and self._refusals() < 3

    def fault(self, seen: Any) -> str | None:
        return "BROKEN" if seen.path == self.broken and self.bad.encode() in seen.body else None

    def _exposed(self) -> int:
        return list(self.recorded.exposed.values()).count(self.bad)

    def _condemned(self) -> bool:
        return self.bad in {entry["manifest"] for entry in self.recorded.model.get("quarantined") or []}

    def _refusals(self) -> int:
        said = list(self.recorded.said.values())
        return sum(entry["state"] == "Rejected" and entry["target"] == self.bad for entry in said)


async def test_a_move_that_is_under_way_lands_before_its_release_is_condemned(
    stages: Callable[[], Any], processes: Any, worlds: Any, proxied: Callable[[], Any], faults: Any
) -> None:
    """The round that began it failed, and the next one would condemn: it waits for what it cannot call back."""
    proxy = proxied()
    async with stages() as stage:
        recorded, world = worlds(stage), worlds(stage)
        wave = Wave(recorded, _manifest(2))
        proxy.answered = _into(recorded)
        async with ApiClient(_by(proxy, stage)) as client:
            process = processes(stage, world, client, resync_seconds=3.0)
            await process.until(lambda _: _done(recorded, 1))
            proxy.held = wave.held
            proxy.fault = lambda seen: (found := wave.fault(seen)) and faults[found]
            stage.bad, stage.shelf.number = _manifest(2), 2
            await process.until(lambda _: _done(recorded, 1, 2))
            await process.end()
    assert wave.slow
    assert wave.broken
    assert recorded.broken == []
