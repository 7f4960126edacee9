"""How far what a node sees and answers is from what its release was validated on. Pure; supervisor and server use it.

The population stability index (PSI) of two histograms is the customary measure; 0.1 counts as a small change and 0.25
as one that asks for action. Of n and m windows that are alike it is about (1/n + 1/m) times a chi-squared number with
one degree of freedom less than there are bins (Yurdakul and Naranjo, Journal of Risk Model Validation 14(4), 2020).
"""

from collections.abc import Mapping, Sequence
from math import log, sqrt
from typing import Final

LEAST_WINDOWS: Final = 40
"""With fewer, chance alone would pass the customary limits; two days of 4,096 s windows give 42."""

Counts = Sequence[int]


def psi(expected: Counts, found: Counts) -> float:
    """Population stability index of two histograms [bins] over the same bins: 0 where they are alike, and symmetric.

    A share counts as at least half a window of the smaller histogram, so that an empty bin has a finite weight.
    Raises ValueError where one counts nothing or their bins are not as many.
    """
    floor = 0.5 / min(sum(expected), sum(found)) if sum(expected) and sum(found) else None
    if floor is None:
        raise ValueError("a histogram that counts nothing is like none")
    total = 0.0
    for one, other in zip(expected, found, strict=True):
        p, q = max(one / sum(expected), floor), max(other / sum(found), floor)
        total += (p - q) * log(p / q)
    return total


def score(expected: Counts, found: Counts) -> float | None:
    """The index less what chance gives by itself, never below 0; None below `LEAST_WINDOWS` found ones.

    Taken off are the mean and one standard deviation of the index of windows that are alike.
    """
    if sum(found) < LEAST_WINDOWS or len(expected) != len(found):
        return None
    free = len(expected) - 1
    chance = (free + sqrt(2 * free)) * (1 / sum(expected) + 1 / sum(found))
    return max(0.0, psi(expected, found) - chance)


def scores(expected: Mapping[str, Counts], found: Mapping[str, Counts]) -> dict[str, float]:
    """By what was compared, its score; without those of which nothing can be said yet."""
    every = {name: score(counts, found.get(name, ())) for name, counts in expected.items()}
    return {name: one for name, one in every.items() if one is not None}


def farthest(expected: Mapping[str, Counts], found: Mapping[str, Counts]) -> float | None:
    """The largest of the scores; None where nothing can be said yet."""
    return max(scores(expected, found).values(), default=None)
