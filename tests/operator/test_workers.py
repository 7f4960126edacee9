"""Many small jobs by a few workers: trouble is raised once nothing runs any more."""

import asyncio

import pytest

from edgewright_operator.workers import for_each


async def test_the_first_trouble_is_raised_once_what_it_stopped_has_ended() -> None:
    begun, running = set[int](), set[int]()

    async def work(item: int) -> None:
        begun.add(item)
        if item == 1:
            raise ValueError("trouble")
        running.add(item)
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(3):  # as a write that is waited for
                await asyncio.sleep(0)
            running.discard(item)

    with pytest.raises(ValueError, match="trouble"):
        await for_each(range(9), work, 3)
    assert begun == {0, 1, 2}
    assert running == set()
