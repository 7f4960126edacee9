import dataclasses
import math

import numpy as np
import pytest

from edgewright_pipelines import sampling
from edgewright_pipelines.recipe import Augmentation


def _with_days(trace, device, days):
    return [
        dataclasses.replace(trace, name=f"{device}-{day}", device=device, date=f"2011-01-{day + 1:02}")
        for day in range(days)
    ]


def test_odds_go_with_the_square_root_of_days(tiny_split):
    fridge, kettle = tiny_split.train[0], tiny_split.train[3]
    traces = _with_days(fridge, "Fridge/A", 16) + _with_days(fridge, "Fridge/B", 9) + _with_days(kettle, "Kettle/A", 1)
    made = sampling.sampler(traces, tiny_split.classes, 256, Augmentation())
    odds = {(device.label, len(device.traces)): odd for device, odd in zip(made.devices, made.odds, strict=True)}
    assert odds[0, 16] + odds[0, 9] == pytest.approx(5 / 6)  # 25 days against 1
    assert odds[0, 16] / odds[0, 9] == pytest.approx(4 / 3)


def test_the_prior_shift_leads_from_drawn_shares_to_those_of_active_windows(tiny_split):
    fridge, kettle = tiny_split.train[0], tiny_split.train[3]
    traces = _with_days(fridge, "Fridge/A", 16) + _with_days(fridge, "Fridge/B", 9) + _with_days(kettle, "Kettle/A", 1)
    half = kettle.watts.copy()
    half[43_200:] = 0  # a kettle that runs for half of its day has half the windows
    traces[-1] = dataclasses.replace(traces[-1], watts=half)
    made = sampling.sampler(traces, tiny_split.classes, 256, Augmentation())
    shift = made.prior_shift(3)
    assert shift[:2] == pytest.approx([math.log(50 / 51 / (5 / 6)), math.log(1 / 51 / (1 / 6))], abs=0.01)
    assert shift[2] == 0  # no router to learn from


def test_draws_active_windows_with_their_labels(tiny_split):
    made = sampling.sampler(tiny_split.train, tiny_split.classes, 256, Augmentation())
    watts, labels = made.draw(64, np.random.default_rng(0))
    assert watts.shape == (64, 1, 256)
    assert set(labels) == {0, 1, 2}
    assert watts[labels == 1].max() > 1500  # kettles
    assert watts[labels == 2].max() < 50  # routers


def test_the_same_generator_draws_the_same(tiny_split):
    made = sampling.sampler(tiny_split.train, tiny_split.classes, 256, Augmentation())
    first, again = (made.draw(8, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])


def test_days_without_power_are_refused_with_a_sentence(tiny_split):
    dark = [dataclasses.replace(t, watts=np.zeros_like(t.watts)) for t in tiny_split.train]
    with pytest.raises(sampling.SamplingError, match=r"None of the 9 training days has an active window of 256 s"):
        sampling.sampler(dark, tiny_split.classes, 256, Augmentation())
