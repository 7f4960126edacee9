from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_agent import drift
from edgewright_operator import evidence
from edgewright_operator.gates import NODE_FALSE_ALARM

HISTOGRAM = st.lists(st.integers(0, 500), min_size=5, max_size=5).filter(sum)
FULL = st.lists(st.integers(20, 500), min_size=5, max_size=5)


@given(HISTOGRAM, HISTOGRAM)
def test_the_index_is_symmetric_and_never_negative(one: list[int], other: list[int]) -> None:
    found = drift.psi(one, other)
    assert found >= 0
    assert found == pytest.approx(drift.psi(other, one))


@given(HISTOGRAM, st.integers(1, 50))
def test_the_same_shares_are_no_drift(counts: list[int], times: int) -> None:
    more = [count * times for count in counts]
    assert drift.psi(counts, more) == pytest.approx(0, abs=1e-9)
    assert drift.score(counts, more) in (0.0, None)


@given(FULL, FULL, st.permutations(range(5)))
def test_the_order_of_the_bins_does_not_matter(one: list[int], other: list[int], order: list[int]) -> None:
    turned = drift.psi([one[index] for index in order], [other[index] for index in order])
    assert turned == pytest.approx(drift.psi(one, other))


@given(FULL, FULL)
def test_fewer_bins_never_show_more(one: list[int], other: list[int]) -> None:
    merged = drift.psi([one[0] + one[1], *one[2:]], [other[0] + other[1], *other[2:]])
    assert merged <= drift.psi(one, other) + 1e-9


def test_the_index_of_a_known_case() -> None:
    # (0.5-0.25) ln(0.5/0.25) + (0.5-0.75) ln(0.5/0.75)
    assert drift.psi([50, 50], [100, 300]) == pytest.approx(0.25 * np.log(2) + 0.25 * np.log(1.5))


@pytest.mark.parametrize(("one", "other"), [([0, 0], [1, 1]), ([1, 1], [0, 0]), ([1, 1], [1, 1, 1])])
def test_what_cannot_be_compared_is_refused(one: list[int], other: list[int]) -> None:
    with pytest.raises(ValueError):
        drift.psi(one, other)


def test_few_windows_say_nothing_and_many_do() -> None:
    expected = [200] * 5
    fewer = drift.LEAST_WINDOWS - 1
    assert drift.score(expected, [0, 0, 0, 0, fewer]) is None
    score = drift.score(expected, [0, 0, 0, 0, drift.LEAST_WINDOWS])
    assert score
    assert score > 1


def test_other_bins_than_the_reference_has_say_nothing() -> None:
    assert drift.score([200] * 5, [50] * 4) is None
    assert drift.farthest({"confidence": [200] * 5}, {}) is None


def test_the_farthest_counts() -> None:
    expected = {"confidence": [200] * 5, "meanWatts": [200] * 5}
    found = {"confidence": [20] * 5, "meanWatts": [100, 0, 0, 0, 0]}
    assert drift.farthest(expected, found) == drift.score(expected["meanWatts"], found["meanWatts"])


def test_a_healthy_node_hardly_ever_looks_as_if_it_had_drifted() -> None:
    """At maxDrift 0.25 a gate counts a node as against from 0.47: of healthy ones fewer than 1 in 1,000 say so much."""
    rng = np.random.default_rng(1)
    draws = [rng.multinomial(size, [0.25] * 4, size=20_000).tolist() for size in (1000, drift.LEAST_WINDOWS)]
    scores = np.array([drift.score(*pair) for pair in zip(*draws, strict=True)])
    against = np.array([evidence.ratio_above(score, 0.25) >= -np.log(NODE_FALSE_ALARM) for score in scores])
    assert np.mean(against) < 0.0005, "two scores are looked at, so half of a thousandth is left for each"
    assert np.mean(scores == 0) > 0.8
