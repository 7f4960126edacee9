"""Backoff, the pace in times of trouble, the fence, and the keyed queue."""

import asyncio
from typing import Any

import pytest

from edgewright_operator.api import ClusterError, Conflict
from edgewright_operator.pacing import Backoff, Pacing
from edgewright_operator.worklist import Worklist


def test_backoff_doubles_to_a_cap_and_begins_anew_after_success() -> None:
    backoff = Backoff(base=0.5, cap=4.0, uniform=lambda _, most: most)
    assert [backoff.failed() for _ in range(5)] == [1.0, 2.0, 4.0, 4.0, 4.0]
    backoff.worked()
    assert backoff.failed() == 1.0


def test_backoff_is_jittered_from_zero() -> None:
    assert Backoff(uniform=lambda least, _: least).failed() == 0.0


@pytest.mark.parametrize(
    ("told", "pause"), [(None, 0.5), ("3", 3.0), ("1000", 30.0), ("soon", 0.5), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.5)]
)
def test_the_server_may_ask_for_a_pause_but_not_for_a_long_one(told: str | None, pause: float) -> None:
    pacing = Pacing(clock=lambda: 100.0, backoff=Backoff(uniform=lambda *_: 0.0))
    pacing.heard(busy=True, retry_after=told)
    assert pacing.open_at == 100.0 + pause


async def test_in_trouble_requests_leave_one_by_one_and_in_good_times_at_once() -> None:
    now = 0.0
    pacing = Pacing(clock=lambda: now, backoff=Backoff(uniform=lambda *_: 0.0))
    await asyncio.wait_for(asyncio.gather(*(pacing.turn() for _ in range(100))), 1)
    pacing.heard(busy=True)
    left: list[float] = []

    async def one() -> None:
        await pacing.turn()
        left.append(now)

    waiting = asyncio.gather(*(one() for _ in range(4)))
    for _ in range(8):
        await asyncio.sleep(0.3)  # it looks at the clock at least twice a second
        now += 0.3
    assert len(left) <= 1 + now / 0.5
    pacing.heard(busy=False)
    await asyncio.wait_for(waiting, 2)


class Work:
    """Counts rounds; raises what it is told to."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.raises: list[BaseException] = []
        self.under_way = 0
        self.hold: asyncio.Event | None = None

    async def __call__(self, key: str) -> None:
        assert self.under_way == 0
        self.under_way += 1
        try:
            self.done.append(key)
            if self.hold is not None:
                await self.hold.wait()
            if self.raises:
                raise self.raises.pop()
        finally:
            self.under_way -= 1


async def _running(work: Work, interval: float, acts: Any) -> None:
    class Enough(Exception):
        pass

    async def script(worklist: Worklist) -> None:
        await acts(worklist)
        raise Enough

    with pytest.raises(ExceptionGroup):
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(script(Worklist(work, interval, group)))


async def test_wakes_during_a_round_are_one_more_round() -> None:
    work = Work()
    work.hold = asyncio.Event()

    async def acts(worklist: Worklist) -> None:
        worklist.wake("a/b")
        await asyncio.sleep(0.05)
        for _ in range(50):
            worklist.wake("a/b")
        assert work.hold is not None
        work.hold.set()
        await asyncio.sleep(1.0)

    await _running(work, 60, acts)
    assert work.done == ["a/b", "a/b"]


async def test_a_key_has_its_rounds_even_if_nothing_wakes_it() -> None:
    work = Work()

    async def acts(worklist: Worklist) -> None:
        worklist.wake("a/b")
        await asyncio.sleep(1.0)

    await _running(work, 0.1, acts)
    assert 3 <= len(work.done) <= 6


@pytest.mark.parametrize("error", [Conflict("first", 409), ClusterError("no", 500), ZeroDivisionError()])
async def test_a_round_that_failed_is_done_again_without_being_woken(error: BaseException) -> None:
    work = Work()
    work.raises = [error]

    async def acts(worklist: Worklist) -> None:
        worklist.wake("a/b")
        while len(work.done) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    await _running(work, 60, acts)
    assert work.done == ["a/b", "a/b"]


async def test_a_forgotten_key_has_no_more_rounds() -> None:
    work = Work()

    async def acts(worklist: Worklist) -> None:
        worklist.wake("a/b")
        await asyncio.sleep(0.05)
        worklist.forget("a/b")
        await asyncio.sleep(0.5)

    await _running(work, 0.1, acts)
    assert work.done == ["a/b"]


async def test_a_round_that_wrote_for_long_does_not_put_the_next_one_off_for_long() -> None:
    work = Work()
    work.hold = asyncio.Event()

    async def acts(worklist: Worklist) -> None:
        worklist.wake("a/b")
        await asyncio.sleep(1.0)
        assert work.hold is not None
        work.hold.set()
        worklist.wake("a/b")
        await asyncio.sleep(2.0)

    await _running(work, 60, acts)
    assert work.done == ["a/b", "a/b"]
