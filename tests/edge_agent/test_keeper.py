from __future__ import annotations

import asyncio
from typing import Any

import pytest

from edgewright_agent import events, health
from edgewright_agent.lifecycle import MAX_SETTLED_CRASHES
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import ModelState

NAME = "default/nilm"
LIMITS = health.Limits(error_rate=0.1, growth_bytes=1000)


def _look(samples: int, errors: int, rss: int = 0) -> health.Look:
    return health.Look("m", "v", samples, errors, rss)


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        (_look(0, 0), _look(1000, 0), None),
        (_look(0, 0), _look(4, 4), None),
        (_look(0, 0), _look(5, 5), Reason.INFERENCE_ERRORS),
        (_look(0, 0), _look(0, 5), Reason.INFERENCE_ERRORS),
        (_look(10_000, 0), _look(10_020, 6), Reason.INFERENCE_ERRORS),
        (_look(10_000, 50), _look(10_100, 55), None),
        (_look(0, 0, 5000), _look(10, 0, 6000), None),
        (_look(0, 0, 5000), _look(10, 0, 6001), Reason.MEMORY_GROWTH),
    ],
)
def test_a_burst_or_growth_is_ill_health_and_single_errors_are_not(
    before: health.Look, now: health.Look, reason: Reason | None
) -> None:
    found = health.judge(before, before, now, LIMITS)
    assert (found.reason if found else None) == reason


async def _on_trial(world: Any) -> tuple[Any, Any, Any, Any]:
    one, two = world.published.release(1), world.published.release(2)
    agent, server = world.agent()
    await agent.start()
    await agent.once(world.spec(one))
    agent.ledger.apply(NAME, events.Ticked(601))
    await agent.once(world.spec(two))
    assert agent.ledger.record(NAME).trial
    return agent, server, one, two


async def _watched(agent: Any, until: Any) -> None:
    watch = asyncio.ensure_future(agent.keeper.watch())
    for _ in range(400):
        await asyncio.sleep(0.005)
        if until():
            break
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


async def test_a_burst_of_errors_on_trial_brings_the_former_back_without_a_new_server(world: Any) -> None:
    world.settings = {"ping_seconds": 0.02}
    agent, server, one, two = await _on_trial(world)
    server.figures = {NAME: {"samples": 9, "errors": 9, "rssBytes": 1, "manifest": two.manifest}}
    await _watched(agent, lambda: server.live[NAME] == one.manifest)
    record = agent.ledger.record(NAME)
    assert (record.state, record.reason, record.quarantined) == (ModelState.REVERTED, Reason.INFERENCE_ERRORS, two)
    assert "9 of 9 windows" in record.message
    assert (server.live, server.generation) == ({NAME: one.manifest}, 1)


async def test_growth_on_trial_brings_the_former_back_in_a_new_server(world: Any) -> None:
    world.settings = {"ping_seconds": 0.02, "max_growth_bytes": 1000}
    agent, server, one, two = await _on_trial(world)
    server.figures = {NAME: {"samples": 1, "errors": 0, "rssBytes": 10_000, "manifest": two.manifest}}
    await _watched(agent, lambda: agent.keeper.counts._now)
    server.figures = {NAME: {**server.figures[NAME], "rssBytes": 12_000}}
    await _watched(agent, lambda: server.generation == 2)
    assert agent.ledger.record(NAME).reason == Reason.MEMORY_GROWTH
    assert (server.live, server.generation) == ({NAME: one.manifest}, 2)


async def test_a_burst_after_the_trial_is_for_the_operators_gates(world: Any) -> None:
    world.settings = {"ping_seconds": 0.02}
    agent, server, _, two = await _on_trial(world)
    agent.ledger.apply(NAME, events.Ticked(601))
    server.figures = {NAME: {"samples": 9, "errors": 9, "rssBytes": 1, "manifest": two.manifest}}
    await _watched(agent, lambda: agent.keeper.counts._now)
    assert server.live == {NAME: two.manifest}


async def test_two_deaths_on_trial_bring_the_former_back(world: Any) -> None:
    world.settings = {"ping_seconds": 0.02}
    agent, server, one, two = await _on_trial(world)
    for generation, serves in ((2, two), (3, one)):
        await server.stop()
        await _watched(agent, lambda generation=generation: server.generation == generation)
        assert server.live == {NAME: serves.manifest}
    assert agent.ledger.record(NAME).reason == Reason.CRASH_LOOP


async def test_after_the_trial_a_release_that_keeps_dying_falls_back_and_stays_away_over_twenty_restarts(
    world: Any,
) -> None:
    world.settings = {"ping_seconds": 0.02}
    agent, server, one, two = await _on_trial(world)
    agent.ledger.apply(NAME, events.Ticked(601))
    for generation in range(2, 2 + MAX_SETTLED_CRASHES):
        await server.stop()
        await _watched(agent, lambda generation=generation: server.generation == generation)
    assert server.live == {NAME: one.manifest}
    for _ in range(20):
        again, server = world.agent()
        await again.start()
        await again.once(world.spec(two))
        assert server.live == {NAME: one.manifest}


async def test_an_agent_that_dies_with_each_start_of_the_trial_model_ends_up_on_the_former(world: Any) -> None:
    await _on_trial(world)
    seen = []
    for _ in range(20):
        again, server = world.agent()
        await again.start()
        seen.append(server.live[NAME])
    assert len(set(seen)) == 2
    assert seen[-1] == seen[6], "and stays there"


async def test_a_server_that_does_not_start_takes_no_release_away(world: Any) -> None:
    agent, server, _, two = await _on_trial(world)
    start, failures = server.start, iter(range(5))

    async def failing() -> None:
        if next(failures, None) is not None:
            raise server._down("no memory")
        await start()

    server.start = failing
    await agent.keeper.recover(server._down("it ended"))
    assert server.live == {NAME: two.manifest}


async def test_the_news_of_an_earlier_death_replaces_nothing(world: Any) -> None:
    agent, server, _, _ = await _on_trial(world)
    old = server._down("long ago")
    await agent.keeper.recover(old)
    generation = server.generation
    await agent.keeper.recover(old)
    assert server.generation == generation
