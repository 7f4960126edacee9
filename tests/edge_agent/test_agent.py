from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from edgewright_agent.refusal import Refusal
from edgewright_contract import keys
from edgewright_contract.conditions import ConditionType, Reason
from edgewright_contract.edgenode import ModelState

NAME = "default/nilm"


async def test_a_release_goes_to_live_and_a_restart_serves_it_without_a_network(world: Any) -> None:
    wish = world.published.release(1)
    agent, server = world.agent()
    await agent.start()
    assert await agent.once(world.spec(wish))
    assert server.live == {NAME: wish.manifest}
    assert agent.ledger.record(NAME).state is ModelState.LIVE

    world.handler = lambda request: httpx2.Response(503)
    again, server = world.agent()
    await again.start()
    assert server.live == {NAME: wish.manifest}
    assert server.asked[-1] == "serve", "requests are taken when everything is loaded, not before"


async def test_a_blob_that_changed_on_disk_is_not_served_and_is_fetched_again(world: Any) -> None:
    first, second = world.published.release(1), world.published.release(2)
    agent, _ = world.agent()
    await agent.start()
    for wish in (first, second):
        await agent.once(world.spec(wish))
    path = world.agent()[0]._tools.store.path(agent.ledger.record(NAME).live.file)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")

    again, server = world.agent()
    await again.start()
    assert server.live == {NAME: first.manifest}, "the newest that verifies"
    assert again.ledger.record(NAME).broken, "and what was lost is remembered"
    await again.once(world.spec(second))
    assert server.live == {NAME: second.manifest}


async def test_a_release_whose_key_was_revoked_goes_on_serving_loudly_over_a_restart(world: Any) -> None:
    wish = world.published.release(1)
    agent, _ = world.agent()
    await agent.start()
    await agent.once(world.spec(wish))
    revoked = keys.key_id(world.published.key.public_key())
    world.trust = world.published.trust(2, revoked_keys=[revoked])
    await agent.once(world.spec(wish))
    assert agent._believed.problem[0] is Reason.BAD_SIGNATURE

    again, server = world.agent()
    await again.start()
    assert server.live == {NAME: wish.manifest}
    assert again._believed.problem[0] is Reason.BAD_SIGNATURE
    await again.once(world.spec(world.published.release(2)))
    assert again.ledger.record(NAME).state is ModelState.REJECTED
    assert server.live == {NAME: wish.manifest}


async def test_a_damaged_trust_document_stops_installs_only(world: Any) -> None:
    wish = world.published.release(1)
    agent, _ = world.agent()
    await agent.start()
    await agent.once(world.spec(wish))
    world.trust = world.published.trust(2)
    await agent.once(world.spec(wish))
    agent._tools.store.path(world.trust).write_bytes(b"{}")

    again, server = world.agent()
    world.handler = lambda request: httpx2.Response(503)
    await again.start()
    assert server.live == {NAME: wish.manifest}
    assert again._believed.problem[0] is Reason.STORAGE_ERROR
    assert not await again.once(world.spec(world.published.release(2)))
    assert server.live == {NAME: wish.manifest}


async def test_trust_that_cannot_be_fetched_is_tried_again_and_the_former_stays(world: Any) -> None:
    wish = world.published.release(1)
    agent, _ = world.agent()
    await agent.start()
    await agent.once(world.spec(wish))
    world.trust = world.published.trust(2)
    world.handler = lambda request: httpx2.Response(503)
    assert not await agent.once(world.spec(wish)), "an unsettled pass is repeated"
    world.handler = world.published.serve
    assert await agent.once(world.spec(wish))
    assert agent.ledger.state.floors.trust == 2


def _lose_the_state(world: Any) -> None:
    for path in world.folder.glob("*state.json"):
        path.unlink()


async def test_older_trust_is_refused_even_after_the_state_was_lost(world: Any) -> None:
    wish, old = world.published.release(1), world.trust
    world.trust = world.published.trust(7)
    agent, _ = world.agent()
    await agent.start()
    await agent.once(world.spec(wish))
    _lose_the_state(world)
    world.trust = old
    again, _ = world.agent()
    await again.start()
    await again.once(world.spec(wish))
    assert again._believed.problem == (Reason.TRUST_REFUSED, "sequence 1 is older than 7")


async def test_an_older_release_is_refused_even_after_it_was_unassigned_and_the_state_was_lost(world: Any) -> None:
    old, new = world.published.release(1), world.published.release(2)
    agent, _ = world.agent()
    await agent.start()
    await agent.once(world.spec(new))
    await agent.once(world.spec(None).model_copy(update={"models": []}))
    await agent.once(world.spec(old))
    assert agent.ledger.record(NAME).reason == Reason.DOWNGRADE
    _lose_the_state(world)
    again, _ = world.agent()
    await again.start()
    await again.once(world.spec(old))
    assert again.ledger.record(NAME).reason == Reason.DOWNGRADE
    await again.once(world.spec(old, permit=world.published.permit(200, old)))
    assert again.ledger.record(NAME).state is ModelState.LIVE


async def test_the_class_label_of_the_node_overrides_and_frees_a_release_that_was_refused(world: Any) -> None:
    wish = world.published.release(1, hardware_classes=["arm64-*"])
    agent, server = world.agent()
    await agent.start()
    await agent.once(world.spec(wish))
    assert agent.ledger.record(NAME).reason == Reason.WRONG_HARDWARE_CLASS
    labels = {"edgewright.dev/hardware-class": "arm64-board"}
    agent._take({"metadata": {"labels": labels}, "spec": world.spec(wish).model_dump(by_alias=True)})
    assert agent._hardware.class_ == "arm64-board"
    await agent.once(agent._spec)
    assert server.live == {NAME: wish.manifest}
    agent._take({"metadata": {}, "spec": {}})
    assert agent._hardware.class_ == "amd64-test"


async def test_a_model_that_kills_the_server_while_it_loads_is_reverted_and_the_former_serves(world: Any) -> None:
    good, bad = world.published.release(1), world.published.release(2)
    agent, server = world.agent()
    await agent.start()
    await agent.once(world.spec(good))
    server.deadly.add(bad.manifest)
    for _ in range(2):
        with pytest.raises(Exception, match="ended during load") as down:
            await agent.once(world.spec(bad))
        await agent.keeper.recover(down.value)
        assert server.live == {NAME: good.manifest}
    assert await agent.once(world.spec(bad))
    record = agent.ledger.record(NAME)
    assert (record.state, record.reason, record.quarantined) == (ModelState.REVERTED, Reason.CRASH_LOOP, bad)
    again, server = world.agent()
    await again.start()
    assert await again.once(world.spec(bad)), "the quarantine is on disk"
    assert (again.ledger.record(NAME).state, server.live) == (ModelState.REVERTED, {NAME: good.manifest})


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        ({"replayed": 30, "errors": 1, "agreement": 1.0}, Reason.INFERENCE_ERRORS),
        ({"replayed": 30, "errors": 0, "agreement": 0.4}, Reason.DISAGREEMENT),
        ({"replayed": 3, "errors": 0, "agreement": 0.4}, Reason.SERVING),
        ({"replayed": 0, "errors": 0, "agreement": None}, Reason.NO_HISTORY),
    ],
)
async def test_own_readings_speak_before_a_model_goes_live(
    world: Any, evidence: dict[str, Any], reason: Reason
) -> None:
    world.settings = {"min_agreement": 0.5}
    wish = world.published.release(1)
    agent, server = world.agent()
    await agent.start()
    server.evidence = evidence
    await agent.once(world.spec(wish))
    assert agent.ledger.record(NAME).reason == reason
    assert bool(server.live) == (reason in (Reason.SERVING, Reason.NO_HISTORY))
    assert server.shadow == {}, "a refused model does not stay loaded"


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        ({"errors": 0, "compared": 30, "agreement": 0.9}, Reason.SERVING),
        ({"errors": 0, "compared": 3, "agreement": 0.1}, Reason.SERVING),
        ({"errors": 0, "compared": 30, "agreement": 0.4}, Reason.DISAGREEMENT),
        ({"errors": 1, "compared": 29, "agreement": 1.0}, Reason.INFERENCE_ERRORS),
    ],
)
async def test_live_windows_speak_too_where_a_shadow_is_asked_for(
    world: Any, seen: dict[str, Any], reason: Reason
) -> None:
    world.settings = {"min_agreement": 0.5, "shadow_seconds": 0.2}
    former, wish = world.published.release(1), world.published.release(2)
    agent, server = world.agent()
    await agent.start()
    await agent.once(world.spec(former))
    task = asyncio.create_task(agent.once(world.spec(wish)))
    while server.shadow != {NAME: wish.manifest}:  # noqa: ASYNC110 - the double tells nobody
        await asyncio.sleep(0)
    assert server.live == {NAME: former.manifest}
    server.figures = {NAME: seen}
    await task
    assert agent.ledger.record(NAME).reason == reason
    assert server.live == {NAME: (wish if reason is Reason.SERVING else former).manifest}
    assert server.shadow == {}


async def test_a_failed_self_test_is_refused_and_the_former_serves(world: Any) -> None:
    good, bad = world.published.release(1), world.published.release(2)
    agent, server = world.agent()
    await agent.start()
    await agent.once(world.spec(good))

    async def fails(held: object) -> None:
        raise Refusal(Reason.SELF_TEST_FAILED, "differs by 0.5")

    world.self_test = fails
    assert await agent.once(world.spec(bad))
    assert agent.ledger.record(NAME).reason == Reason.SELF_TEST_FAILED
    assert server.live == {NAME: good.manifest}
    assert "load" not in server.asked[server.asked.index("serve") + 5 :], "it never came near the server"


@pytest.mark.parametrize("phase", ["download", "self-test", "benchmark"])
async def test_what_takes_long_is_broken_off_when_the_operator_wants_something_else(world: Any, phase: str) -> None:
    one, two = world.published.release(1), world.published.release(2)
    agent, server = world.agent()
    await agent.start()
    await agent.once(world.spec(one))

    async def never(*_: object) -> None:
        await asyncio.sleep(3600)

    changes: dict[str, Any] = {}
    if phase == "download":
        world.handler = lambda request: httpx2.Response(200, content=_endless())
    else:
        world.self_test = never
    if phase == "benchmark":
        changes = {"benchmark": {"manifest": two.manifest, "variants": ["fp32"]}}
    wish = one if phase == "benchmark" else two
    agent._take({"metadata": {}, "spec": world.spec(wish, **changes).model_dump(by_alias=True)})
    working = asyncio.ensure_future(agent.once(agent._spec))
    await asyncio.sleep(0.05)
    assert not working.done()
    agent._take({"metadata": {}, "spec": world.spec(one).model_dump(by_alias=True)})
    assert await asyncio.wait_for(working, 5) is False
    world.handler = world.published.serve
    assert await agent.once(agent._spec)
    assert (server.live, agent.ledger.record(NAME).state) == ({NAME: one.manifest}, ModelState.LIVE)


async def _endless() -> AsyncIterator[bytes]:
    await asyncio.sleep(3600)
    yield b""


@pytest.mark.parametrize("versions", [1, 2])
async def test_a_damaged_state_costs_the_node_nothing_that_was_whole(world: Any, versions: int) -> None:
    one, two = world.published.release(1), world.published.release(2)
    agent, _ = world.agent()
    await agent.start()
    for wish in (one, two):
        assert await agent.once(world.spec(wish))
    for name in ("state.json", "before-state.json")[:versions]:
        (world.folder / name).write_bytes(b"\0" * 700)
    online, world.handler = world.handler, lambda request: httpx2.Response(503)
    agent, server = world.agent()
    await agent.start()
    assert server.live == ({NAME: one.manifest} if versions == 1 else {})  # as it stood before the last step
    world.handler = online
    if versions > 1:
        assert await agent.once(world.spec(one))
        assert agent.ledger.record(NAME).reason == Reason.DOWNGRADE
    assert await agent.once(world.spec(two))
    assert server.live == {NAME: two.manifest}
    await agent._teller._write()
    (stored,) = [it for it in agent._kube.told[-1]["conditions"] if it["type"] == ConditionType.STORAGE_OK]
    assert (stored["status"], stored["reason"]) == ("False", Reason.STORAGE_ERROR)
    assert "state.json was damaged" in stored["message"]


async def test_a_spec_of_another_form_is_told_and_what_runs_goes_on(world: Any) -> None:
    wish = world.published.release(1)
    agent, server = world.agent()
    await agent.start()
    assert await agent.once(world.spec(wish))
    good = world.spec(wish).model_dump(by_alias=True)
    agent._take({"metadata": {}, "spec": good})
    for spec, conditions in (
        ({**good, "models": [{"name": "no slash"}]}, ("False", Reason.INVALID_SPEC, "spec.models.0.name: ")),
        (good, ("True", Reason.SERVING, "")),
    ):
        agent._take({"metadata": {}, "spec": spec})
        await agent._teller._write()
        (ready,) = [it for it in agent._kube.told[-1]["conditions"] if it["type"] == ConditionType.READY]
        assert (ready["status"], ready["reason"]) == conditions[:2]
        assert ready.get("message", "").startswith(conditions[2])
        assert await agent.once(agent._spec)
        assert server.live == {NAME: wish.manifest}


async def test_another_trust_document_of_the_same_sequence_is_refused(world: Any) -> None:
    wish, first = world.published.release(1), world.trust
    agent, _ = world.agent()
    await agent.start()
    await agent.once(world.spec(wish))
    world.trust = world.published.trust(1)
    assert world.trust != first  # signed anew
    assert await agent.once(world.spec(wish))
    reason, said = agent._believed.problem
    assert reason is Reason.TRUST_REFUSED
    assert "only a higher one replaces it" in said
    assert agent._believed.opened.digest == first


async def test_a_fault_of_ours_in_a_step_holds_the_rollout_up_and_ends_nothing(world: Any) -> None:
    good, next_ = world.published.release(1), world.published.release(2)
    agent, server = world.agent()
    await agent.start()
    await agent.once(world.spec(good))
    failed, passes = [], world.self_test

    async def self_test(held: Any) -> Any:
        if not failed:
            failed.append(held)
            raise ZeroDivisionError
        return await passes(held)

    world.self_test = self_test
    agent._take({"metadata": {}, "spec": world.spec(next_).model_dump(by_alias=True, exclude_none=True)})
    reconciling = asyncio.create_task(agent._reconcile())
    try:
        async with asyncio.timeout(30):
            while not failed or server.live != {NAME: next_.manifest}:
                assert not reconciling.done()
                await asyncio.sleep(0.01)
                agent._changed.set()
    finally:
        reconciling.cancel()
