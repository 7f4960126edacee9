from __future__ import annotations

import asyncio
from typing import Any

from edgewright_agent import teller as tellers
from edgewright_agent.kube import KubeError

NAME = "default/nilm"


class Flaky:
    def __init__(self, failures: int) -> None:
        self.failures, self.told = failures, list[dict[str, Any]]()

    async def patch_status(self, status: dict[str, Any]) -> None:
        if self.failures:
            self.failures -= 1
            raise KubeError("503 down", 503)
        self.told.append(status)


async def _ran(agent: Any, until: Any) -> None:
    task = asyncio.ensure_future(agent._teller.run())
    for _ in range(400):
        await asyncio.sleep(0.005)
        if until():
            break
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_status_that_was_refused_is_written_soon_without_a_new_event(world: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(tellers, "FIRST_PAUSE", 0.01)
    world.kube = Flaky(3)
    agent, _ = world.agent()
    await agent.start()
    await agent.once(world.spec(world.published.release(1)))
    await _ran(agent, lambda: world.kube.told)
    (status,) = world.kube.told
    assert status["models"][0]["state"] == "Live"
    assert {entry["type"]: entry["status"] for entry in status["conditions"]}["Ready"] == "True"


async def test_nothing_is_written_where_nothing_changed(world: Any) -> None:
    agent, _ = world.agent()
    await agent.start()
    await agent.once(world.spec(world.published.release(1)))
    for _ in range(3):
        agent._teller.tell()
        await _ran(agent, lambda: not agent._teller._due.is_set())
    assert len(world.kube.told) == 1


async def test_figures_are_of_what_serves_and_are_saved_before_they_are_told(world: Any) -> None:
    wish = world.published.release(1)
    agent, _ = world.agent()
    await agent.start()
    await agent.once(world.spec(wish))
    answer = {"samples": 40, "effectiveSamples": 3, "replayed": 2, "errors": 0, "p50Microseconds": 4}
    agent.keeper.counts.look(
        {NAME: {**answer, "p95Microseconds": 9, "rssBytes": 7, "manifest": wish.manifest, "variant": wish.variant}}
    )
    agent._teller._take_figures()
    await agent._teller._write()
    figures = world.kube.told[-1]["models"][0]["figures"]
    assert (figures["samples"], figures["effectiveSamples"], figures["replayed"]) == (40, 3, 2)
    assert figures["since"] == agent.ledger.record(NAME).live_since
    again, _ = world.agent()
    await again.start()
    assert again.ledger.record(NAME).counted.samples == 40


async def test_figures_of_the_former_release_are_not_told_of_the_next(world: Any) -> None:
    one, two = world.published.release(1), world.published.release(2)
    agent, _ = world.agent()
    await agent.start()
    await agent.once(world.spec(one))
    agent.keeper.counts.look({NAME: {"samples": 40, "manifest": one.manifest}})
    agent._teller._take_figures()
    await agent.once(world.spec(two))
    world.now = world.now.replace(hour=3)
    await agent._teller._write()
    assert "figures" not in world.kube.told[-1]["models"][0]
