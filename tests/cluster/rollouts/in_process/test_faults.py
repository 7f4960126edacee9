"""Random faults between the operator and the API server while a version is promoted and the next one is aborted.

Drops, lost answers, 409, 410, 429, 500, lists of earlier, silent and short watches. What went through is recorded at
the proxy; whatever happens, no exposure is above the wave, and once the faults end so does the rollout.
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
WRITES = ("DROP", "CUT", "CONFLICT", "BUSY", "BROKEN", "STALL")
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

        def answered(seen: Any, code: int) -> None:
            if seen.writes and code < 300 and f"/namespaces/{names.NAMESPACE}/leases" not in seen.path:
                recorded.wrote(seen.method, seen.path, json.loads(seen.body))

        proxy.fault, proxy.answered = fault, answered
        configuration = Configuration(host=proxy.url, api_key={"BearerToken": f"Bearer {stage.plane.token}"})
        async with ApiClient(configuration) as client:
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
