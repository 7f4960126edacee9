"""The attacks of The Update Framework's list: what the agent says, what it fetches, and that the old serves.

Source: TUF specification, section 1.5.2 (goals to protect against specific attacks).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

from edgewright_contract import bundle, keys, trust
from edgewright_contract.conditions import Reason
from edgewright_contract.digests import digest_of
from edgewright_contract.edgenode import Assignment, ModelState

NAME = "default/nilm"


async def _serving(world: Any) -> tuple[Any, Any, list[str], Assignment]:
    """A node on release 5, whose gateway writes down what it is asked for."""
    good = world.published.release(5)
    agent, server = world.agent()
    await agent.start()
    assert await agent.once(world.spec(good))
    asked: list[str] = []
    honest = world.handler

    def watched(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.path.rpartition("/")[2])
        response: httpx2.Response = honest(request)
        return response

    world.handler = watched
    return agent, server, asked, good


def _arbitrary(world: Any) -> Assignment:
    return world.published.release(6, key=keys.generate())  # type: ignore[no-any-return]


def _unsigned(world: Any) -> Assignment:
    wish: Assignment = world.published.release(6)
    signed = json.loads(world.published.blobs[wish.manifest.removeprefix("sha256:")])
    signed["dsseEnvelope"]["signatures"] = []
    bare = json.dumps(signed, separators=(",", ":"), sort_keys=True).encode()
    return wish.model_copy(update={"manifest": world.published.add(bare)})


def _other_software(world: Any) -> Assignment:
    return world.published.release(6, registeredModel="nilm-else")  # type: ignore[no-any-return]


def _rollback(world: Any) -> Assignment:
    return world.published.release(4)  # type: ignore[no-any-return]


def _fast_forward(world: Any) -> Assignment:
    return world.published.release(6, 2**52)  # type: ignore[no-any-return]


def _expired(world: Any) -> Assignment:
    return world.published.release(6, notAfter=1)  # type: ignore[no-any-return]


def _genuine_but_no_release(world: Any) -> Assignment:
    manifest = world.published.add(bundle.sign("nilm-test", {"weights.onnx": b"x"}, world.published.key))
    return Assignment(version=6, sequence=600, manifest=manifest, variant="fp32")


def _wrong_device(world: Any) -> Assignment:
    return world.published.release(6, hardware_classes=["arm64-*"])  # type: ignore[no-any-return]


def _mix_and_match(world: Any) -> Assignment:
    """The name and sequence of one release on the manifest of another."""
    wish: Assignment = world.published.release(6)
    return wish.model_copy(update={"version": 7, "sequence": 700})


@pytest.mark.parametrize(
    ("attack", "reason", "fetched"),
    [
        (_arbitrary, Reason.BAD_SIGNATURE, 1),
        (_unsigned, Reason.BAD_SIGNATURE, 1),
        (_other_software, Reason.NOT_A_RELEASE, 2),
        (_rollback, Reason.DOWNGRADE, 3),
        (_fast_forward, Reason.NOT_A_RELEASE, 3),
        (_expired, Reason.EXPIRED, 3),
        (_genuine_but_no_release, Reason.NOT_A_RELEASE, 1),
        (_wrong_device, Reason.WRONG_HARDWARE_CLASS, 3),
        (_mix_and_match, Reason.NOT_A_RELEASE, 2),
    ],
)
async def test_it_is_refused_with_its_reason_and_the_old_serves(
    world: Any, attack: Callable[[Any], Assignment], reason: Reason, fetched: int
) -> None:
    agent, server, asked, good = await _serving(world)
    wish = attack(world)
    for _ in range(2):
        assert await agent.once(world.spec(wish)), "refused for good, not tried again and again"
    record = agent.ledger.record(NAME)
    assert (record.state, record.reason) == (ModelState.REJECTED, reason), record.message
    assert server.live == {NAME: good.manifest}
    assert len(asked) == len(set(asked)) == fetched, (
        "no more than up to the check that failed; golden windows were there"
    )
    assert (record.live.assignment, record.candidate) == (good, None)
    again, server = world.agent()
    await again.start()
    assert server.live == {NAME: good.manifest}


async def test_a_compromised_key_stops_being_believed_with_the_next_trust(world: Any) -> None:
    agent, server, asked, good = await _serving(world)
    stolen = world.published.key
    world.published.key = keys.generate()
    world.trust = world.published.trust(2, revoked_keys=[keys.key_id(stolen.public_key())])
    await agent.once(world.spec(world.published.release(7, key=stolen)))
    assert agent.ledger.record(NAME).reason == Reason.BAD_SIGNATURE
    assert len(asked) == 2, "trust and manifest, no file of the release"
    assert server.live == {NAME: good.manifest}


async def test_trust_that_another_root_signed_is_nobodys(world: Any) -> None:
    agent, server, _, good = await _serving(world)
    mine = keys.public_pem(keys.generate().public_key()).decode()
    key = trust.ReleaseKey(public_key=mine, registered_models=["*"])
    world.trust = world.published.add(trust.sign(trust.Trust(sequence=99, release_keys=[key]), keys.generate()))
    assert await agent.once(world.spec(good)), "it would not get better by trying again"
    assert agent._believed.problem[0] is Reason.TRUST_REFUSED
    assert agent.ledger.state.floors.trust == 1
    assert server.live == {NAME: good.manifest}


async def test_endless_data_is_cut_at_what_is_signed(world: Any) -> None:
    agent, server, _, good = await _serving(world)
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 65536
            yield bytes(65536)
            await asyncio.sleep(0)

    wish = world.published.release(6)
    world.handler = lambda request: httpx2.Response(200, content=endless())
    assert not await agent.once(world.spec(wish))
    record = agent.ledger.record(NAME)
    assert (record.state, record.reason) == (ModelState.PENDING, Reason.DOWNLOAD_FAILED)
    assert taken <= 3 * 65536, "a manifest has 64 KiB at most"
    assert server.live == {NAME: good.manifest}


async def test_what_hides_behind_the_right_digest_of_the_wrong_file_is_not_taken(world: Any) -> None:
    """Each blob answers with another one's bytes."""
    agent, server, _, good = await _serving(world)
    wish = world.published.release(6)
    honest = world.published.serve
    other = next(iter(world.published.blobs))
    world.handler = lambda request: honest(httpx2.Request("GET", f"http://x/blobs/sha256/{other}"))
    assert not await agent.once(world.spec(wish))
    assert agent.ledger.record(NAME).reason == Reason.DOWNLOAD_FAILED
    assert digest_of(world.published.blobs[other]).endswith(other)
    assert server.live == {NAME: good.manifest}
