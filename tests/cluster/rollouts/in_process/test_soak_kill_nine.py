"""`make soak`: a real operator process killed with SIGKILL after its n-th write, for every n, promote and abort.

EDGEWRIGHT_SOAK_POINTS=1-40 takes a part of the points, so that several runs share the work.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from edgewright_contract import names

_LOOKS = 4000
"""Twenty to a second at most; looks, not seconds, so that a run that is put to sleep for a while goes on."""


def _manifest(version: int) -> str:
    return f"sha256:{version:064x}"


async def _sources(shelf: Any) -> web.AppRunner:
    async def alias(_: web.Request) -> web.Response:
        found = await shelf.alias()
        tags = [{"key": key, "value": value} for key, value in found.tags.items()]
        return web.json_response({"model_version": {"version": str(found.version), "tags": tags}})

    async def release(request: web.Request) -> web.Response:
        asked = await request.json()
        facts, trust = await shelf.release("", asked["version"], asked["manifest"])
        body = {"manifest": asked["manifest"], "release": facts.release.model_dump(by_alias=True, mode="json")}
        return web.json_response(body | {"trust": trust})

    application = web.Application()
    application.router.add_get("/api/2.0/mlflow/registered-models/alias", alias)
    application.router.add_post("/releases", release)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner


class Operator:
    """A real process behind the proxy; killed by its n-th write about the stage."""

    def __init__(self, proxy: Any, world: Any, shard: str, environment: dict[str, str], log: Path) -> None:
        self.proxy, self.world, self.shard, self.environment, self.log = proxy, world, shard, environment, log
        self.child: asyncio.subprocess.Process | None = None
        self.lives: int | None = None
        self.killed = False
        proxy.answered = self._answered

    def _answered(self, seen: Any, code: int) -> None:
        lease = f"/namespaces/{names.NAMESPACE}/leases" in seen.path
        if not seen.writes or code >= 300 or lease or self.shard not in seen.path:
            return
        self.world.wrote(seen.method, seen.path, json.loads(seen.body))
        if self.lives is not None and not self.killed:
            self.lives -= 1
            if self.lives <= 0 and self.child is not None:
                os.kill(self.child.pid, signal.SIGKILL)
                self.killed = True

    async def start(self) -> None:
        with self.log.open("ab") as log:
            command = (sys.executable, "-m", "edgewright_operator.main")
            self.child = await asyncio.create_subprocess_exec(*command, env=self.environment, stdout=log, stderr=log)

    async def until(self, wanted: Callable[[], bool], lives: int | None) -> bool:
        """Whether it was killed on the way; a killed one is followed by the next."""
        await self._followed()
        self.lives, self.killed = lives, False
        for _ in range(_LOOKS):
            reached = wanted()
            await self._followed()  # also where the very write that brought it there was the last
            if reached:
                return self.killed
            await asyncio.sleep(0.05)
        told = {key: self.world.model.get(key) for key in ("release", "wave", "counts", "gate", "conditions")}
        return pytest.fail(f"not within {_LOOKS} looks: {json.dumps(told)} {self.world.exposed}")

    async def _followed(self) -> None:
        """The next one begins where the last was killed."""
        if self.killed and self.lives is not None and self.child is not None:
            await self.child.wait()
            self.lives = None
            await self.start()

    async def end(self) -> None:
        if self.child is not None and self.child.returncode is None:
            self.child.terminate()
            await self.child.wait()


@pytest.mark.soak
@pytest.mark.timeout(14400)
async def test_every_point_with_real_processes(
    stages: Callable[[], Any], worlds: Any, proxied: Callable[[], Any], tmp_path: Path
) -> None:
    proxy = proxied()
    (tmp_path / "token").write_text("t\n")
    async with stages() as stage:
        runner, world = await _sources(stage.shelf), worlds(stage)
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        settings = {
            "KUBECONFIG": str(proxy.kubeconfig), "MLFLOW_URL": url, "GATEWAY_URL": url, "INTERVAL": "0.2",
            "GATEWAY_TOKEN_FILE": str(tmp_path / "token"), "POLL_SECONDS": "0.2", "LEASE_SECONDS": "1",
            "METRICS_PORT": "0",
        }  # fmt: skip
        environment = os.environ | {f"EDGEWRIGHT_OPERATOR_{key}": value for key, value in settings.items()}
        operator = Operator(proxy, world, stage.shard, environment, tmp_path / "operator.log")
        first, last = (int(end) for end in os.environ.get("EDGEWRIGHT_SOAK_POINTS", "1-1000").split("-"))
        await operator.start()
        version = 1
        try:
            await operator.until(lambda: _live(world, 1), None)
            for n in range(first, last + 1):
                good, bad = version + 1, version + 2
                stage.shelf.number = good
                promoted = await operator.until(lambda good=good: _live(world, good), n)
                stage.bad = _manifest(bad)
                stage.accepted.clear()
                stage.shelf.number = version = bad
                aborted = await operator.until(lambda good=good, bad=bad: _back(world, good, bad), n)
                assert world.broken == []
                outcomes = [entry["outcome"] for entry in world.model["history"] if entry["version"] == good]
                assert outcomes == ["Promoted"]
                print(f"point {n}: killed in the promotion: {promoted}, in the abort: {aborted}", flush=True)
                if not promoted and not aborted:
                    assert n > 50
                    break
        finally:
            await operator.end()
            await runner.cleanup()


def _live(world: Any, version: int) -> bool:
    good = (world.model.get("lastGood") or {}).get("version") == version
    return good and set(world.exposed.values()) == {_manifest(version)}


def _back(world: Any, good: int, bad: int) -> bool:
    condemned = [entry["manifest"] for entry in world.model.get("quarantined") or []]
    return _manifest(bad) in condemned and set(world.exposed.values()) == {_manifest(good)}
