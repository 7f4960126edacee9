"""Inside training: random windows of day series and the mild changes that help by day; heavier ones hurt (measured)."""

import numpy as np
import numpy.typing as npt

from edgewright_pipelines.recipe import Augmentation

WARP_PROBABILITY = 0.5
HOLE_FRACTIONS = (1 / 256, 1 / 16)  # a meter's gap: 16 s to 256 s of a 4,096 s window
CUTOUT_FRACTIONS = (1 / 8, 1 / 2)  # the appliance was switched off for part of the window

Watts = npt.NDArray[np.float32]


def window(
    series: npt.NDArray[np.uint16], start: int, seconds: int, how: Augmentation, rng: np.random.Generator
) -> Watts:
    """One changed window, float32 [seconds], of a day's `series` [86400] from about second `start`."""
    watts = _warped(series, start, seconds, how.warp, rng).astype(np.float32)
    if how.log_scale_sigma:
        watts *= np.exp(np.float32(rng.normal(0.0, how.log_scale_sigma)))
    _blank(watts, how.hole_probability, HOLE_FRACTIONS, rng)
    _blank(watts, how.cutout_probability, CUTOUT_FRACTIONS, rng)
    return watts


def _warped(
    series: npt.NDArray[np.uint16], start: int, seconds: int, most: float, rng: np.random.Generator
) -> npt.NDArray[np.uint16]:
    if not most or rng.random() >= WARP_PROBABILITY:
        return series[start : start + seconds]
    stretch = 1.0 + rng.uniform(-most, most)
    start = max(0, min(start, len(series) - int(np.ceil(seconds * stretch))))
    picked = start + (np.arange(seconds) * stretch).astype(np.int64)
    return series[np.minimum(picked, len(series) - 1)]


def _blank(watts: Watts, probability: float, fractions: tuple[float, float], rng: np.random.Generator) -> None:
    """Set one part to 0 W, in place, with this probability."""
    if rng.random() >= probability:
        return
    length = max(1, int(len(watts) * rng.uniform(*fractions)))
    start = int(rng.integers(0, len(watts) - length + 1))
    watts[start : start + length] = 0.0
