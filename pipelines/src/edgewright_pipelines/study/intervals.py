"""Inside the report: 95 % intervals of figures, by drawing seeds and, inside each, days with replacement."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgewright_pipelines.study.tally import Figure, Tally

LOW, HIGH = 2.5, 97.5


@dataclass(frozen=True, slots=True)
class Interval:
    """The mean over seeds of a figure, and where 95 % of the draws lie."""

    mean: float
    low: float
    high: float


def interval(by_seed: Sequence[Tally], figure: Figure, *, resamples: int, seed: int = 0) -> Interval | None:
    """Of one figure; None without a tally. With one seed the draws are of days only."""
    if not by_seed:
        return None
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        found = by_seed[int(rng.integers(len(by_seed)))]
        draws.append(figure(found, rng.integers(len(found.day), size=len(found.day))))
    exact = [figure(found, np.arange(len(found.day))) for found in by_seed]
    return _of(float(np.mean(exact)), draws)


def paired(
    ours: Sequence[Tally], theirs: Sequence[Tally], figure: Figure, *, resamples: int, seed: int = 0
) -> Interval | None:
    """Of the difference ours - theirs on the same days, seed by seed; None if they do not have the same days.

    A draw takes the same days for both, so what makes a day hard for both does not widen the interval.
    """
    pairs = [(mine, other) for mine, other in zip(ours, theirs, strict=False) if np.array_equal(mine.day, other.day)]
    if not pairs:
        return None
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        mine, other = pairs[int(rng.integers(len(pairs)))]
        drawn = rng.integers(len(mine.day), size=len(mine.day))
        draws.append(figure(mine, drawn) - figure(other, drawn))
    exact = [figure(mine, np.arange(len(mine.day))) - figure(other, np.arange(len(other.day))) for mine, other in pairs]
    return _of(float(np.mean(exact)), draws)


def _of(mean: float, draws: Sequence[float]) -> Interval:
    low, high = np.percentile(np.asarray(draws), (LOW, HIGH))
    return Interval(mean, float(low), float(high))
