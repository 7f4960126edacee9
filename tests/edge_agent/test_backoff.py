"""Pauses between tries grow, end at their bound, and differ from node to node."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from edgewright_agent.backoff import pause_seconds


@given(st.integers(1, 10_000), st.floats(0.001, 10), st.floats(0.001, 1000), st.integers())
def test_a_pause_is_half_to_all_of_what_has_doubled_up_to_the_bound(
    failures: int, first: float, longest: float, seed: int
) -> None:
    whole = min(longest, first * 2.0 ** min(failures - 1, 100))
    assert whole / 2 <= pause_seconds(failures, first, longest, random.Random(seed)) <= whole


def test_nodes_do_not_try_again_in_step() -> None:
    pauses = sorted(pause_seconds(6, 0.5, 30.0, random.Random(seed)) for seed in range(1000))
    assert pauses[0] < 8.1
    assert pauses[-1] > 15.9
    assert 11.5 < sum(pauses) / 1000 < 12.5
