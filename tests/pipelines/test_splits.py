from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright_pipelines.data.traces import Trace
from edgewright_pipelines.splits import SplitError, by_day, by_device, strong_classes

ON, OFF = np.full(86_400, 40, dtype=np.uint16), np.zeros(86_400, dtype=np.uint16)


def trace(appliance, plug, number, subset="complete", date=None, watts=ON):
    name = f"{subset}/{appliance}/{plug}_{number:03d}"
    date = date or f"2024-{1 + number // 28:02d}-{1 + number % 28:02d}"
    return Trace(name, appliance, f"{appliance}/{plug}", subset, date, watts, 0)


def fleet(shape):
    """shape: class -> days of each of its devices."""
    return [
        trace(name, f"p{plug}", number)
        for name, devices in shape.items()
        for plug, days in enumerate(devices)
        for number in range(days)
    ]


shapes = st.dictionaries(
    st.sampled_from("ABCDEFG"), st.lists(st.integers(1, 14), min_size=1, max_size=6), min_size=2, max_size=6
)


def sides(split):
    return (split.train, split.validation, split.test)


def disjoint(sets):
    return sum(map(len, sets)) == len(set().union(*sets))


def names(split):
    return [[t.name for t in side] for side in sides(split)]


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(0, 1000))
def test_by_day_properties(shape, seed):
    traces = fleet(shape)
    eligible = {name for name, devices in shape.items() if sum(devices) >= 8}
    if len(eligible) < 2:
        with pytest.raises(SplitError, match="needs two classes that have 8 days"):
            by_day(traces, seed=seed)
        return
    split = by_day(traces, seed=seed)
    placed = [t for side in sides(split) for t in side]
    assert sorted(t.name for t in placed) == sorted(t.name for t in traces if t.appliance in eligible)
    assert set(split.classes) == eligible
    days = [{(t.device, t.date) for t in side} for side in sides(split)]
    assert disjoint(days)
    for side in sides(split):
        assert {t.appliance for t in side} == eligible
    assert names(by_day(traces[::-1], seed=seed)) == names(split)  # whatever the order they come in


@settings(max_examples=30, deadline=None)
@given(shapes, st.integers(0, 1000))
def test_by_day_tests_no_device_that_was_never_trained(shape, seed):
    shape = {name: [days + 3 for days in devices] for name, devices in shape.items()}
    traces = fleet({**shape, "X": [9], "Y": [9, 9]})
    split = by_day(traces, seed=seed)
    trained = {t.device for t in split.train}
    assert {t.device for side in sides(split) for t in side} == trained


def test_by_day_is_proportional_in_class_and_device():
    split = by_day(fleet({"A": [60, 40], "B": [100]}), seed=1)
    assert [len(side) for side in sides(split)] == [134, 26, 40]
    test_days = defaultdict(int)
    for found in split.test:
        test_days[found.device] += 1
    assert test_days["A/p0"] in (11, 12, 13)
    assert test_days["A/p1"] in (7, 8, 9)


def test_seed_changes_the_split_and_its_name():
    traces = fleet({"A": [30], "B": [30]})
    first, second = by_day(traces, seed=1), by_day(traces, seed=2)
    assert names(first) != names(second)
    assert "seed 1" in first.name
    assert first.name != second.name


def test_top_keeps_the_most_frequent_classes():
    assert by_day(fleet({"A": [9], "B": [20], "C": [12]}), seed=0, top=2).classes == ("B", "C")


def test_quiet_days_take_no_part():
    traces = fleet({"A": [10], "B": [10], "C": [7]}) + [trace("C", "p0", 100 + n, watts=OFF) for n in range(9)]
    split = by_day(traces, seed=0)
    assert split.classes == ("A", "B")
    assert all(t.watts.any() for side in sides(split) for t in side)


def test_days_that_were_built_from_one_another_stay_together():
    traces = fleet({"A": [12], "B": [12]})
    traces += [trace("A", "synthetic", n, subset="synthetic", date="2024-01-03") for n in range(5)]
    split = by_day(traces, seed=3)
    holders = [side for side in sides(split) if any(t.appliance == "A" and t.date == "2024-01-03" for t in side)]
    assert len(holders) == 1
    assert sum(t.date == "2024-01-03" and t.appliance == "A" for t in holders[0]) == 6


@settings(max_examples=20, deadline=None)
@given(shapes, st.integers(0, 1000), st.integers(3, 6))
def test_by_device_properties(shape, seed, folds):
    shape = {**shape, "X": [4, 5, 6], "Y": [3, 3, 3, 3, 3, 3], "Z": [2, 9, 4, 1]}
    traces = fleet(shape)
    eligible = {name for name, devices in shape.items() if len(devices) >= 3}
    tested = []
    for fold in range(folds):
        split = by_device(traces, folds=folds, fold=fold, seed=seed)
        assert set(split.classes) == eligible
        devices = [{t.device for t in side} for side in sides(split)]
        assert disjoint(devices)
        assert {t.appliance for t in split.train} == eligible  # nothing is tested that was never trained
        tested += [t.name for t in split.test]
    assert sorted(tested) == sorted(t.name for t in traces if t.appliance in eligible)  # once each, over all folds


def test_strong_classes_have_five_metered_devices():
    traces = fleet({"A": [1] * 5, "B": [1] * 4})
    traces += [trace("B", "synthetic", 1, subset="synthetic")]
    assert strong_classes(traces) == ("A",)


def test_mistakes_are_sentences():
    one_device = fleet({"A": [9], "B": [9]})
    with pytest.raises(SplitError, match=r"two classes that have 3 devices or more, but 0 do; .*A 1, B 1"):
        by_device(one_device, fold=0, seed=0)
    with pytest.raises(SplitError, match="no traces at all"):
        by_day([], seed=0)
    with pytest.raises(SplitError, match="min_days is 2"):
        by_day(one_device, seed=0, min_days=2)
    with pytest.raises(SplitError, match="min_devices is 2"):
        by_device(one_device, fold=0, seed=0, min_devices=2)
    with pytest.raises(SplitError, match="Fold 5 of 5 does not exist"):
        by_device(one_device, fold=5, seed=0)


def test_a_fold_without_devices_says_which_side_is_empty():
    few = fleet({"A": [1, 1, 1], "B": [1, 1, 1]})
    messages = []
    for fold in range(9):
        try:
            by_device(few, folds=9, fold=fold, seed=0)
        except SplitError as error:
            messages.append(str(error))
    assert any(message.startswith("The test side of split 'by-device") for message in messages)
    assert len(messages) >= 3  # six devices cannot fill nine folds
