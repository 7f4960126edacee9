import numpy as np
import pytest

from edgewright_pipelines import augment
from edgewright_pipelines.recipe import Augmentation

NOTHING = Augmentation(warp=0.0, log_scale_sigma=0.0, hole_probability=0.0, cutout_probability=0.0)
DAY = (np.arange(86_400) % 3000 + 1).astype(np.uint16)


def test_without_changes_the_window_is_the_day_itself():
    window = augment.window(DAY, 500, 256, NOTHING, np.random.default_rng(0))
    assert window.dtype == np.float32
    assert np.array_equal(window, DAY[500:756])


def test_the_day_is_never_written_to():
    before = DAY.copy()
    how = Augmentation(hole_probability=1.0, cutout_probability=1.0, log_scale_sigma=0.5)
    for seed in range(20):
        augment.window(DAY, 500, 256, how, np.random.default_rng(seed))
    assert np.array_equal(DAY, before)


@pytest.mark.parametrize("start", [0, 86_400 - 256])
def test_a_warp_stays_inside_the_day(start):
    how = NOTHING.model_copy(update={"warp": 0.3})
    for seed in range(50):
        assert augment.window(DAY, start, 256, how, np.random.default_rng(seed)).shape == (256,)


def test_a_warp_changes_the_pace():
    ramp = np.minimum(np.arange(86_400), 60_000).astype(np.uint16)
    how = NOTHING.model_copy(update={"warp": 0.03})
    rises = {float(np.ptp(augment.window(ramp, 1000, 1000, how, np.random.default_rng(s)))) for s in range(60)}
    assert 999.0 in rises  # half of the windows stay as they are
    assert min(rises) < 985 < 1015 < max(rises)
    assert min(rises) >= 999 * 0.97 - 1
    assert max(rises) <= 999 * 1.03 + 1


@pytest.mark.parametrize(
    ("field", "fractions"),
    [("hole_probability", augment.HOLE_FRACTIONS), ("cutout_probability", augment.CUTOUT_FRACTIONS)],
)
def test_one_part_of_the_promised_length_becomes_zero(field, fractions):
    how = NOTHING.model_copy(update={field: 1.0})
    for seed in range(50):
        blank = augment.window(DAY, 0, 1024, how, np.random.default_rng(seed)) == 0
        assert int(fractions[0] * 1024) <= blank.sum() <= fractions[1] * 1024
        assert np.count_nonzero(np.diff(blank.astype(int)) == 1) + int(blank[0]) == 1
