"""The ring of readings: order, gaps, late readings and a clock that was set back."""

import numpy as np
import pytest

from edgewright_agent.serving.window import Ring, is_reading


def filled(count: int, watts: float = 5.0, capacity: int = 100) -> Ring:
    ring = Ring(capacity)
    for second in range(1000, 1000 + count):
        assert ring.push(second, watts) == 0
    return ring


def test_a_window_waits_until_it_is_full_and_wraps():
    ring = Ring(10)
    for second in range(1000, 1025):
        ring.push(second, second)
    assert ring.latest(4).tolist() == [1021, 1022, 1023, 1024]
    assert filled(3).latest(4) is None


def test_a_gap_holds_sixty_seconds_and_is_zero_after_that():
    ring = filled(10, capacity=200)
    assert ring.push(1010 + 70, 9) == 70
    window = ring.latest(81)
    np.testing.assert_array_equal(window, [5] * 70 + [0] * 10 + [9])


@pytest.mark.parametrize("gap", [99, 100, 101, 10_000, 10_000_000])
def test_a_gap_longer_than_the_ring_leaves_no_old_reading(gap):
    ring = filled(100)
    assert ring.push(1100 + gap, 9) == gap
    window = ring.latest(100)
    assert window[-1] == 9
    assert (window[: max(0, 99 - max(0, 60 - max(0, gap - 99)))] <= 5).all()
    assert window[-2] == 0


def test_a_late_reading_is_dropped_and_a_repeated_second_replaced():
    ring = filled(10)
    assert ring.push(1005, 77) == 0
    assert 77 not in ring.latest(10)
    ring.push(1009, 8)
    assert (ring.latest(1)[0], ring.filled) == (8, 10)


def test_a_clock_set_back_begins_the_ring_anew():
    ring = filled(10)
    ring.push(1009 - 3600 + 10_000, 1)
    ring.push(900, 2)
    assert (ring.filled, ring.last) == (1, 900)


@pytest.mark.parametrize(
    ("second", "watts", "good"),
    [(0, 0, True), (1, -5, True), (-1, 0, False), (1, float("nan"), False), (1, 1e6, False)],
)
def test_implausible_readings(second, watts, good):
    assert is_reading(second, watts) is good
