import numpy as np
import pytest

from edgewright_pipelines.scores import score
from edgewright_pipelines.study import tally
from edgewright_pipelines.study.intervals import interval, paired
from edgewright_pipelines.windows import WindowSet

CLASSES = ("A", "B", "C")


def _set(rng, windows=120, days=24):
    day = np.sort(rng.integers(days, size=windows)).astype(np.int32)
    label = (day % 3).astype(np.int16)
    watts = rng.integers(0, 9, (windows, 16)).astype(np.uint16)
    return WindowSet(watts, label, day, tuple(f"d{n}" for n in range(days)), CLASSES)


def _answers(rng, windows, right):
    sure = np.eye(3)[windows.label] * right + rng.random((len(windows), 3))
    return sure / sure.sum(axis=1, keepdims=True)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_a_tally_gives_the_figures_that_windows_give(rng):
    windows = _set(rng)
    answers = _answers(rng, windows, 0.6)
    found = tally.remembered(tally.tally(answers, windows).as_json(), CLASSES)
    every = np.arange(len(found.day))
    exact = score(answers, windows)
    assert tally.window_f1(found, every) == pytest.approx(exact.macro_f1)
    assert tally.day_f1(found, every) == pytest.approx(exact.macro_f1_by_day)
    assert tally.window_accuracy(found, every) == pytest.approx(exact.accuracy)
    assert tally.bce(found, every) == pytest.approx(exact.bce, abs=1e-3)


def test_asked_among_fewer_classes_no_other_is_answered(rng):
    windows = _set(rng)
    found = tally.tally(_answers(rng, windows, 0.1), windows, among=("A", "C"))
    assert set(found.label) == {0, 2}
    assert found.windows[:, 1].sum() == 0
    assert found.windows.sum() == (windows.label != 1).sum()


def test_a_mask_leaves_windows_out(rng):
    windows = _set(rng)
    mask = np.arange(len(windows)) % 2 == 0
    assert tally.tally(_answers(rng, windows, 1), windows, mask=mask).windows.sum() == mask.sum()


def test_an_answer_of_a_class_that_is_not_asked_is_an_error_and_no_class_of_its_own(rng):
    windows = _set(rng)
    answers = np.eye(3)[windows.label]
    wrong = np.flatnonzero(windows.label == 0)[:4]
    answers[wrong] = np.eye(3)[2]  # C, of which the mask leaves no window
    found = tally.tally(answers, windows, mask=windows.label != 2)
    recall = 1 - len(wrong) / (windows.label == 0).sum()
    assert tally.window_f1(found, np.arange(len(found.day))) == pytest.approx((2 * recall / (1 + recall) + 1) / 2)


def test_the_mean_of_folds_takes_each_fold_over_its_own_classes(rng):
    good, poor = _set(rng), _set(rng)
    poor = poor.select(poor.label != 2)
    tallies = [tally.tally(_answers(rng, good, 3.0), good), tally.tally(_answers(rng, poor, 0.1), poor)]
    each = [tally.window_f1(found, np.arange(len(found.day))) for found in tallies]
    whole = tally.pooled(tallies)
    every = np.arange(len(whole.day))
    assert tally.mean_of_folds(tally.window_f1)(whole, every) == pytest.approx(np.mean(each))
    assert tally.window_f1(whole, every) != pytest.approx(np.mean(each), abs=0.01)


def test_pooled_folds_keep_every_day(rng):
    tallies = [tally.tally(_answers(rng, windows, 1), windows) for windows in (_set(rng), _set(rng))]
    whole = tally.pooled(tallies)
    assert len(set(whole.day)) == sum(len(found.day) for found in tallies)
    assert np.array_equal(tally.confusion(whole), sum(tally.confusion(found) for found in tallies))


def test_a_paired_interval_is_above_zero_for_the_better_and_around_it_for_the_same(rng):
    windows = _set(rng, windows=600, days=90)
    good = tally.tally(_answers(rng, windows, 3.0), windows)
    poor = tally.tally(_answers(rng, windows, 0.3), windows)
    better = paired([good], [poor], tally.window_f1, resamples=100)
    assert better.low > 0
    assert better.mean == pytest.approx(
        tally.window_f1(good, np.arange(len(good.day))) - tally.window_f1(poor, np.arange(len(poor.day)))
    )
    same = paired([poor], [poor], tally.window_f1, resamples=50)
    assert (same.low, same.mean, same.high) == (0, 0, 0)


def test_pairing_needs_the_same_days(rng):
    few, many = (tally.tally(_answers(rng, found, 1), found) for found in (_set(rng, 20, 4), _set(rng)))
    assert paired([few], [many], tally.window_f1, resamples=20) is None


def test_more_days_make_an_interval_narrower(rng):
    few, many = _set(rng, 60, 12), _set(rng, 3000, 600)
    wide, narrow = (
        interval([tally.tally(_answers(rng, found, 0.5), found)], tally.window_f1, resamples=200)
        for found in (few, many)
    )
    assert narrow.high - narrow.low < wide.high - wide.low
    assert interval([], tally.window_f1, resamples=20) is None
