"""One holder at a time, judged by our own clock, fenced by the resourceVersion."""

from datetime import UTC, datetime
from typing import Any

import pytest

from edgewright_operator.api import Conflict
from edgewright_operator.election import Election, Standing

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Leases:
    """One Lease as the API server keeps it."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None
        self.version = 0
        self.before_write: Any = None

    async def lease(self, _: str) -> dict[str, Any] | None:
        return self.stored

    async def write_lease(self, lease: dict[str, Any], *, create: bool) -> None:
        if self.before_write:
            self.before_write()
        held = self.stored["metadata"]["resourceVersion"] if self.stored else None
        if create is not (held is None) or lease["metadata"].get("resourceVersion") != held:
            raise Conflict("somebody wrote first", 409)
        self.touch(lease)

    def touch(self, lease: dict[str, Any]) -> None:
        self.version += 1
        self.stored = {**lease, "metadata": {**lease["metadata"], "resourceVersion": str(self.version)}}


@pytest.fixture
def leases() -> Any:
    return Leases()


async def test_the_second_waits_until_the_first_was_silent_for_the_whole_life(leases: Any) -> None:
    first, second = Election("first", 15), Election("second", 15)
    assert await first.hold(leases, NOW, 0) is Standing.HELD
    assert await second.hold(leases, NOW, 100) is Standing.WAITING  # however old it looks: first seen only now
    assert await first.hold(leases, NOW, 110) is Standing.HELD
    assert await second.hold(leases, NOW, 116) is Standing.WAITING  # renewed in between
    assert await second.hold(leases, NOW, 130.9) is Standing.WAITING
    assert await second.hold(leases, NOW, 131) is Standing.HELD
    assert await first.hold(leases, NOW, 131) is Standing.LOST
    assert leases.stored["spec"]["holderIdentity"] == "second"
    assert leases.stored["spec"]["leaseTransitions"] == 2


async def test_who_writes_second_does_not_hold(leases: Any) -> None:
    first = Election("first", 15)
    assert await first.hold(leases, NOW, 0) is Standing.HELD
    leases.before_write = lambda: leases.touch(leases.stored)
    assert await first.hold(leases, NOW, 1) is Standing.LOST
    assert first.sure_until < 1


async def test_writes_stop_well_before_another_may_begin(leases: Any) -> None:
    first = Election("first", 15)
    await first.hold(leases, NOW, 100)
    assert first.sure_until == 110
    await first.hold(leases, NOW, 105)
    assert first.sure_until == 115


async def test_a_holder_that_could_not_renew_goes_on_if_nobody_acted_in_between(leases: Any) -> None:
    first = Election("first", 15)
    await first.hold(leases, NOW, 0)
    assert await first.hold(leases, NOW, 100) is Standing.HELD


async def test_a_holder_that_another_followed_is_lost_even_when_that_one_gave_up(leases: Any) -> None:
    first, second = Election("first", 15), Election("second", 15)
    await first.hold(leases, NOW, 0)
    await second.hold(leases, NOW, 1)
    assert await second.hold(leases, NOW, 17) is Standing.HELD
    await second.release(leases, NOW)
    assert await first.hold(leases, NOW, 18) is Standing.LOST
    third = Election("third", 15)
    assert await third.hold(leases, NOW, 18) is Standing.HELD  # a released Lease is free at once
