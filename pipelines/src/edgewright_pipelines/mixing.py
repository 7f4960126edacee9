"""Before the second task: the load of a home, made by adding windows of different appliances' real days.

The truth is exact, because each part was metered alone; what is made up is only which parts run together.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from edgewright_pipelines.sampling import Sampler
from edgewright_pipelines.windows import WindowSet, is_active

MEAN_MORE: Final = 2.0  # appliances beside the first: Poisson, so 3 on average, as in a home of a few people
MOST: Final = 8
BASE_WATTS: Final = 40.0  # largest constant load of what nobody metered
NOISE_WATTS: Final = 2.0  # deviation of the meter's noise floor

Watts = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MixtureSet(WindowSet):
    """Windows of summed load. truth: float32 [n, classes], mean watts of each appliance in the window; 0 if it is off.

    label: the appliance that takes most; day: each mixture is a day of its own, because its parts are of several.
    """

    truth: Watts


@dataclass(frozen=True, slots=True)
class Mixer:
    """Draws summed windows from training days, as `sampling.Sampler` draws single ones."""

    parts: Sampler
    classes: int

    @property
    def seconds(self) -> int:
        """Length of a window."""
        return self.parts.seconds

    def draw(self, batch: int, rng: np.random.Generator) -> tuple[Watts, Watts]:
        """Summed windows float32 [batch, 1, seconds] and truth float32 [batch, classes]."""
        counts = how_many(batch, self.classes, rng)
        windows, labels = self.parts.draw(int(counts.sum()), rng)
        watts, truth = np.zeros((batch, 1, self.seconds), np.float32), np.zeros((batch, self.classes), np.float32)
        row = 0
        for index, count in enumerate(counts):
            for part, label in zip(windows[row : row + count, 0], labels[row : row + count], strict=True):
                if truth[index, label] == 0:  # a second device of a class would hide in the first
                    watts[index, 0] += part
                    truth[index, label] = mean_watts(part)
            row += count
            watts[index, 0] = with_floor(watts[index, 0], rng)
        return watts, truth


def mixtures(windows: WindowSet, count: int, seed: int) -> MixtureSet:
    """So many mixtures of the windows of one side, the same for the same seed.

    Raises ValueError for an empty side.
    """
    if not len(windows):
        raise ValueError("There are no windows to mix; this side of the split has no active window.")
    rng = np.random.default_rng(seed)
    classes, seconds = len(windows.classes), windows.watts.shape[1]
    rows = [np.flatnonzero(windows.label == label) for label in range(classes)]
    present = [label for label in range(classes) if len(rows[label])]
    watts, truth = np.zeros((count, seconds), np.uint16), np.zeros((count, classes), np.float32)
    for index, wanted in enumerate(how_many(count, len(present), rng)):
        load = np.zeros(seconds, np.float32)
        for label in rng.choice(present, wanted, replace=False):
            part = windows.watts[rng.choice(rows[label])].astype(np.float32)
            load += part
            truth[index, label] = mean_watts(part)
        watts[index] = with_floor(load, rng).round().clip(0, 65_535).astype(np.uint16)
    label = truth.argmax(axis=1).astype(np.int16)
    days = tuple(f"mixture/{index}" for index in range(count))
    return MixtureSet(watts, label, np.arange(count, dtype=np.int32), days, windows.classes, truth)


def how_many(batch: int, classes: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Appliances that run together in each window [batch]: 1 to 8, and never more than there are."""
    return np.minimum(1 + rng.poisson(MEAN_MORE, batch), min(MOST, classes)).astype(np.int64)


def mean_watts(part: npt.NDArray[np.float32]) -> float:
    """Mean watts of one appliance in the window; 0 if it hardly draws power there."""
    return float(part.mean()) if is_active(part.round().astype(np.uint16)) else 0.0


def with_floor(load: Watts, rng: np.random.Generator) -> Watts:
    """With a constant load that belongs to no appliance, and the meter's noise; never below 0 W."""
    floor = rng.uniform(0.0, BASE_WATTS) + rng.normal(0.0, NOISE_WATTS, len(load))
    return np.maximum(load + floor, 0.0).astype(np.float32)
