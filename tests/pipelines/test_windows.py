import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_pipelines.data.traces import Trace
from edgewright_pipelines.windows import WindowError, cut, is_active, starts, strong


def trace(watts, name="complete/A/a_1", appliance="A"):
    day = np.zeros(86_400, dtype=np.uint16)
    day[: len(watts)] = watts
    return Trace(name, appliance, f"{appliance}/a", "complete", "2024-01-01", day, 0)


def test_active_means_more_than_two_percent_at_two_watts_or_more():
    window = np.zeros(100, dtype=np.uint16)
    window[:2] = 2
    assert not is_active(window)  # exactly 2 % is not more
    window[2] = 2
    assert is_active(window)
    assert not is_active(np.ones(100, dtype=np.uint16))


@given(st.integers(1, 86_400), st.integers(1, 86_400), st.integers(0, 2**32 - 1))
def test_starts_are_exactly_the_active_windows(window, hop, seed):
    hop = max(hop, 200)
    dice = np.random.default_rng(seed)
    day = np.zeros(86_400, dtype=np.uint16)
    first = int(dice.integers(0, 86_400))
    day[first : first + int(dice.integers(0, 5000))] = dice.integers(0, 4)
    found = set(starts(day, window=window, hop=hop).tolist())
    every = range(0, 86_400 - window + 1, hop)
    assert found == {second for second in every if is_active(day[second : second + window])}
    assert starts(day, window=window, hop=hop, active_only=False).tolist() == list(every)


def test_cut_keeps_order_labels_and_days_of_quiet_traces():
    busy, quiet = trace([100] * 5000), trace([0], name="complete/B/b_1", appliance="B")
    late = trace([50] * 86_400, name="complete/B/b_2", appliance="B")
    found = cut([busy, quiet, late], ["A", "B"], window=4096, hop=512)
    assert found.watts.dtype == np.uint16
    assert found.label.dtype == np.int16
    assert found.day.dtype == np.int32
    assert found.days == ("complete/A/a_1", "complete/B/b_1", "complete/B/b_2")
    assert set(found.day.tolist()) == {0, 2}
    assert (found.day == 2).sum() == 161
    assert found.label.tolist() == [0] * (found.day == 0).sum() + [1] * 161
    np.testing.assert_array_equal(found.watts[1], busy.watts[512 : 512 + 4096])
    assert len(cut([quiet], ["B"], window=4096, hop=512)) == 0
    assert len(cut([quiet], ["B"], window=4096, hop=512, active_only=False)) == 161


def test_window_of_a_whole_day_and_none():
    assert cut([trace([9] * 86_400)], ["A"], window=86_400, hop=1).watts.shape == (1, 86_400)
    assert cut([trace([9] * 86_400)], ["A"], window=86_401, hop=1).watts.shape == (0, 86_401)
    assert cut([], ["A"], window=10, hop=1).watts.shape == (0, 10)


def test_strong_subset_needs_the_class_and_the_watts():
    weak = trace([14] * 6000, name="w", appliance="A")
    mighty = trace([15] * 6000, name="m", appliance="A")
    other = trace([90] * 6000, name="o", appliance="B")
    windows = cut([weak, mighty, other], ["A", "B"], window=4096, hop=512)
    kept = windows.select(strong(windows, ["A"]))
    assert {kept.days[day] for day in kept.day} == {"m"}


def test_mistakes_are_sentences():
    with pytest.raises(WindowError, match=r"hop of 0 s .* must be 1 s or more"):
        cut([], ["A"], window=10, hop=0)
    with pytest.raises(WindowError, match="class A were given, but the classes are B, C"):
        cut([trace([1])], ["B", "C"], window=10, hop=1)
