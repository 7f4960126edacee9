"""What the rhythm says of windows whose seconds are known, and where its knots are laid."""

import copy

import pytest
import torch

from edgewright_pipelines.networks.rhythm import LAGS, LEVELS, RAMPS, SIGNALS, STEPS, Rhythm
from edgewright_pipelines.networks.thermometer import KNOTS, Front

BIN = 64
RHYTHM = Rhythm(BIN, len(KNOTS))


def _told(watts):
    """Statistics of one window [seconds], as numbers before the logarithm, by kind."""
    bins = torch.as_tensor(watts, dtype=torch.float32).reshape(1, -1, BIN)
    values = RHYTHM.statistics(bins, Front(BIN).logarithms(bins)).exp() - RHYTHM.shifts
    counts = (len(LAGS), len(LAGS), SIGNALS, len(STEPS), len(LEVELS), 3 * len(KNOTS))
    kinds = ("power", "changes", "parts", "steps", "levels", "extremes")
    return dict(zip(kinds, values[0].split(counts), strict=True))


def _at(correlations, lag):
    return float(correlations[LAGS.index(lag)])


def test_the_correlation_is_that_of_the_formula_at_every_lag():
    """Against the sum written out: seconds of the first half of each bin with those so many seconds later."""
    watts = torch.randint(0, 9, (8, BIN), generator=torch.Generator().manual_seed(0)).float()
    companded = watts[:, 1:] / (watts[:, 1:] + 5.0)
    centered = companded - companded.mean(1, keepdim=True)
    rows = range(BIN // 2 - 1)
    lagged = [sum(float((centered[:, row] * centered[:, row + lag]).sum()) for row in rows) for lag in (0, *LAGS)]
    wanted = torch.tensor([found / (lagged[0] + 0.5) for found in lagged[1:]])
    assert torch.allclose(_told(watts.flatten())["power"], wanted, atol=1e-4)


def test_a_period_stands_out_at_its_lag_and_half_of_it_is_opposed():
    second = torch.arange(4096)
    power = _told(torch.where(second % 8 < 4, 2, 1))["power"]
    assert _at(power, 8) > 0.9
    assert _at(power, 16) > 0.9
    assert _at(power, 4) < -0.9


def test_two_stand_bys_of_one_level_differ_by_how_often_they_move():
    second = torch.arange(4096)
    slow, fast = (_told(1 + (second // length) % 2) for length in (16, 2))
    assert torch.allclose(slow["extremes"][:4], fast["extremes"][:4], atol=0.02)  # maximum, minimum, mean, range
    assert float(slow["parts"][1]) == pytest.approx(3 / 63, abs=0.02)  # three of 63 seconds move
    assert float(fast["parts"][1]) == pytest.approx(0.5, abs=0.02)
    assert _at(fast["changes"], 2) > 0.9 > 0.1 > _at(slow["changes"], 2)
    assert _at(slow["changes"], 16) > 0.5


def test_parts_of_the_seconds_above_a_level_and_with_a_step():
    told = _told(torch.tensor([0.0, 6.0]).repeat(2048).reshape(-1, 8).roll(1, 1).flatten())
    assert [round(float(part), 2) for part in told["steps"][:4]] == [1.0, 1.0, 1.0, 0.0]  # 1, 2, 5 and 10 W
    levels = _told(torch.full((4096,), 6.0))["levels"]
    assert [float(part) for part in levels[:8]] == pytest.approx([1, 1, 1, 1, 1, 1, 0, 0], abs=1e-5)


@pytest.mark.parametrize("watts", [0.0, 1.0, 65_535.0])
def test_a_window_that_never_moves_gives_numbers(watts):
    bins = torch.full((2, 8, BIN), watts)
    ramps = RHYTHM(bins, Front(BIN).logarithms(bins))
    assert ramps.shape == (2, RHYTHM.channels, 1, 1)
    assert torch.isfinite(ramps).all()


@pytest.mark.parametrize("seconds", [4, 8, 16, 32])
def test_short_bins_have_fewer_lags(seconds):
    rhythm = Rhythm(seconds, len(KNOTS))
    bins = torch.rand(3, 8, seconds) * 100
    assert rhythm(bins, Front(seconds).logarithms(bins)).shape == (3, rhythm.channels, 1, 1)


def test_knots_lie_where_the_windows_are_and_rise():
    """The ramps of the mean power, which no two windows share, are then half full on average."""
    rhythm, front = Rhythm(BIN, len(KNOTS)), Front(BIN)
    bins = torch.randint(0, 400, (256, 16, BIN), generator=torch.Generator().manual_seed(1)).float()
    bins *= torch.rand(256, 1, 1, generator=torch.Generator().manual_seed(2))
    logs, mean = front.logarithms(bins), 2 - 3 * len(KNOTS)
    before = rhythm(bins, logs)
    rhythm.adapt(bins, logs)
    after = rhythm(bins, logs)
    filled = [float(ramps.reshape(256, -1, RAMPS)[:, mean].mean()) for ramps in (before, after)]
    assert filled[0] > 0.9
    assert filled[1] == pytest.approx(0.5, abs=0.05)
    assert (rhythm.starts[:, 1:] > rhythm.starts[:, :-1]).all()


def _busy():
    """A rhythm whose knots were laid, and bins that it was not laid for, with the front's logarithms."""
    rhythm, front = Rhythm(BIN, len(KNOTS)), Front(BIN)
    bins = torch.randint(0, 400, (64, 16, BIN), generator=torch.Generator().manual_seed(1)).float()
    rhythm.adapt(bins, front.logarithms(bins))
    bins = torch.randint(0, 90, (8, 16, BIN), generator=torch.Generator().manual_seed(2)).float()
    return rhythm, bins, front.logarithms(bins)


def test_ramps_that_are_kept_say_what_they_said_in_the_grid_also_after_a_second_time():
    rhythm, bins, logs = _busy()
    whole = rhythm(bins, logs)
    rhythm.keep([3, 40, 41, 500, 1055])
    assert rhythm.channels == 5
    assert torch.equal(rhythm(bins, logs), whole[:, [3, 40, 41, 500, 1055]])
    rhythm.keep([1, 4])
    assert torch.equal(rhythm(bins, logs), whole[:, [40, 1055]])


def test_a_lean_rhythm_computes_only_what_is_read_and_says_the_same():
    rhythm, bins, logs = _busy()
    first = {"power": 0, "change": len(LAGS), "step": 2 * len(LAGS) + SIGNALS}
    first["level"] = first["step"] + len(STEPS)
    read = [first["power"] + 2, first["change"] + 2, first["change"] + 7, first["step"] + 1, first["level"] + 24]
    rhythm.keep([statistic * RAMPS + ramp for statistic in read for ramp in (0, 5)])
    lean = copy.deepcopy(rhythm)
    lean.lean()
    assert [int(lag) for lag in lean.lags] == [0, LAGS[2], LAGS[7]]
    assert lean.steps.flatten().tolist() == [STEPS[1]]
    assert lean.levels.flatten().tolist() == [LEVELS[24]]
    assert lean.statistics(bins, logs).shape == (8, 2 * 2 + SIGNALS + 1 + 1 + 3 * len(KNOTS))
    assert torch.allclose(lean(bins, logs), rhythm(bins, logs), atol=1e-6)


def test_a_rhythm_of_one_ramp_and_one_with_all_can_be_made_lean():
    rhythm, bins, logs = _busy()
    whole = rhythm(bins, logs)
    rhythm.lean()
    assert torch.equal(rhythm(bins, logs), whole)
    rhythm.keep([1055])
    rhythm.lean()
    assert rhythm.statistics(bins, logs).shape[1] == SIGNALS * 2 + 1 + 1 + 3 * len(KNOTS)
    assert torch.allclose(rhythm(bins, logs), whole[:, 1055:], atol=1e-6)


def test_changes_tell_windows_apart_that_differ_only_in_the_order_of_their_bins():
    rhythm = Rhythm(BIN, len(KNOTS), changes=True)
    once = torch.tensor([10.0] * 4 + [50.0] * 4).reshape(1, -1, 1).expand(1, 8, BIN)
    often = torch.tensor([10.0, 50.0] * 4).reshape(1, -1, 1).expand(1, 8, BIN)
    front, count = Front(BIN), len(KNOTS)
    without, told = zip(
        *(
            (RHYTHM.statistics(bins, logs), rhythm.statistics(bins, logs))
            for bins in (once, often)
            for logs in [front.logarithms(bins)]
        ),
        strict=True,
    )
    assert torch.allclose(without[0], without[1], atol=1e-5)
    assert told[0].shape[1] == without[0].shape[1] + 4 * count
    variance, steps, rise, fall = (told[1] - told[0])[0, -4 * count :].split(count)
    assert torch.allclose(variance, torch.zeros(count), atol=1e-4)
    assert bool((steps[:3] > 1.0).all())  # maximum, minimum, mean: seven steps instead of one
    assert torch.allclose(rise, torch.zeros(count), atol=1e-4)
    assert bool((fall[:3] > 1.0).all())  # the first window never falls
    assert bool(torch.isfinite(rhythm.statistics(torch.zeros(1, 8, BIN), torch.zeros(1, count, 8))).all())
