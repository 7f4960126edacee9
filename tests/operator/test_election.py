"""One holder at a time, judged by our own clock, fenced by the resourceVersion."""

from datetime import UTC, datetime
from typing import Any

import pytest

from edgewright_operator.cluster import Conflict
from edgewright_operator.election import Election

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
    assert await first.hold(leases, NOW, 0)
    assert not await second.hold(leases, NOW, 100)  # however old it looks: first seen only now
    assert await first.hold(leases, NOW, 110)
    assert not await second.hold(leases, NOW, 116)  # renewed in between
    assert not await second.hold(leases, NOW, 130.9)
    assert await second.hold(leases, NOW, 131)
    assert not await first.hold(leases, NOW, 131)
    assert leases.stored["spec"]["holderIdentity"] == "second"
    assert leases.stored["spec"]["leaseTransitions"] == 2


async def test_who_writes_second_does_not_hold(leases: Any) -> None:
    first = Election("first", 15)
    assert await first.hold(leases, NOW, 0)
    leases.before_write = lambda: leases.touch(leases.stored)
    assert not await first.hold(leases, NOW, 1)
