"""Inside a cell: answers on test windows, counted for each day, so that intervals can be drawn again without a network.

A day is the unit that is drawn: its windows are alike, so counting them as independent would make intervals too narrow.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_pipelines.scores import CLIP
from edgewright_pipelines.windows import WindowSet

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
MILLI = 1000.0
FOLD = 1_000_000  # from the day numbers of one fold to those of the next, where several are pooled


@dataclass(frozen=True, slots=True)
class Tally:
    """One network's answers on one set of windows, by day.

    day: int64 [days], numbers of the split's test days, which pair two networks; label: int64 [days]; answered: int64
    [days], the class with the largest sum of log-probabilities; windows: int64 [days, classes], how often each class
    was answered; bce: float64 [days], summed over the day's windows and all classes.
    """

    classes: tuple[str, ...]
    day: Counts
    label: Counts
    answered: Counts
    windows: Counts
    bce: Floats

    def as_json(self) -> list[list[int]]:
        """A row for each day: day, label, answer, thousandths of bce, right windows, then (class, windows) pairs."""
        rows = []
        for day, label, answered, counted, bce in zip(
            self.day, self.label, self.answered, self.windows, self.bce, strict=True
        ):
            wrong = [index for index in np.flatnonzero(counted) if index != label]
            pairs = [int(part) for index in wrong for part in (index, counted[index])]
            rows.append([int(day), int(label), int(answered), round(bce * MILLI), int(counted[label]), *pairs])
        return rows


def remembered(rows: Sequence[Sequence[int]], classes: Sequence[str]) -> Tally:
    """A tally from what `as_json` made of it."""
    counted = np.zeros((len(rows), len(classes)), dtype=np.int64)
    for row, (_, label, _, _, right, *pairs) in zip(counted, rows, strict=True):
        row[label] = right
        for index, count in zip(pairs[::2], pairs[1::2], strict=True):
            row[index] = count
    columns = np.array([row[:4] for row in rows], dtype=np.int64).reshape(len(rows), 4)
    bce = columns[:, 3] / MILLI
    return Tally(tuple(classes), columns[:, 0], columns[:, 1], columns[:, 2], counted, bce)


def tally(
    probabilities: npt.NDArray[Any], windows: WindowSet, among: Sequence[str] | None = None, mask: Any = None
) -> Tally:
    """Count answers on `windows`; `among`: only days of these classes and only these as answers; mask: only these."""
    kept = np.ones(len(windows), dtype=bool) if mask is None else np.asarray(mask)
    asked = np.array([among is None or name in among for name in windows.classes])
    kept = kept & asked[windows.label]
    logs = np.log(np.clip(probabilities.astype(np.float64), CLIP, 1.0))[kept]
    logs[:, ~asked] = -np.inf
    label, place = windows.label[kept].astype(np.int64), windows.day[kept]
    days, first, inverse = np.unique(place, return_index=True, return_inverse=True)
    sums = np.zeros((len(days), len(windows.classes)))
    np.add.at(sums, inverse, logs)
    counted = np.zeros(sums.shape, dtype=np.int64)
    np.add.at(counted, (inverse, logs.argmax(axis=1)), 1)
    bce = np.bincount(inverse, weights=_bce(probabilities[kept], label), minlength=len(days))
    answered = sums.argmax(axis=1) if len(days) else np.zeros(0, dtype=np.int64)
    return Tally(windows.classes, days.astype(np.int64), label[first], answered, counted, bce.astype(np.float64))


def _bce(probabilities: npt.NDArray[Any], label: Counts) -> Floats:
    clipped = np.clip(probabilities.astype(np.float64), CLIP, 1 - CLIP)
    truth = np.zeros_like(clipped)
    truth[np.arange(len(label)), label] = 1.0
    return np.asarray(-(truth * np.log(clipped) + (1 - truth) * np.log(1 - clipped)).sum(axis=1))


Figure = Callable[[Tally, Counts], float]
"""A figure of a tally whose days are drawn by index, one perhaps several times."""


def window_f1(found: Tally, drawn: Counts) -> float:
    """Macro-F1 of windows over the classes that occur; an answer of another class is an error of the true one."""
    confusion = np.zeros((len(found.classes), len(found.classes)), dtype=np.int64)
    np.add.at(confusion, found.label[drawn], found.windows[drawn])
    return _macro_f1(confusion)


def day_f1(found: Tally, drawn: Counts) -> float:
    """Macro-F1 of days."""
    confusion = np.zeros((len(found.classes), len(found.classes)), dtype=np.int64)
    np.add.at(confusion, (found.label[drawn], found.answered[drawn]), 1)
    return _macro_f1(confusion)


def window_accuracy(found: Tally, drawn: Counts) -> float:
    """Part of the windows that are answered right."""
    right = found.windows[drawn, found.label[drawn]].sum()
    return float(right / max(1, found.windows[drawn].sum()))


def bce(found: Tally, drawn: Counts) -> float:
    """Mean over windows of the binary cross-entropy summed over classes."""
    return float(found.bce[drawn].sum() / max(1, found.windows[drawn].sum()))


def confusion(found: Tally) -> Counts:
    """Windows [truth, answer]."""
    table = np.zeros((len(found.classes), len(found.classes)), dtype=np.int64)
    np.add.at(table, found.label, found.windows)
    return table


def f1_by_class(table: Counts) -> Mapping[int, float]:
    """F1 of each class that occurs in truth or answers, by its index."""
    right, total = np.diag(table), table.sum(axis=0) + table.sum(axis=1)
    return {int(index): float(2 * right[index] / total[index]) for index in np.flatnonzero(total)}


def mean_of_folds(figure: Figure) -> Figure:
    """The mean over folds of a figure of a pooled tally, each fold over the classes that occur in it."""

    def of(found: Tally, drawn: Counts) -> float:
        fold = found.day[drawn] // FOLD
        return float(np.mean([figure(found, drawn[fold == number]) for number in np.unique(fold)]))

    return of


def _macro_f1(table: Counts) -> float:
    """Over the classes that occur in truth: one more that is answered must not count as a class with F1 0."""
    values = f1_by_class(table)
    occur = np.flatnonzero(table.sum(axis=1))
    return float(np.mean([values[int(index)] for index in occur])) if len(occur) else 0.0


def pooled(tallies: Sequence[Tally]) -> Tally:
    """Several folds' tallies as one; days get new numbers, so pool the same folds in the same order to pair."""
    first = tallies[0]
    number = np.concatenate([index * FOLD + entry.day for index, entry in enumerate(tallies)])
    parts = [[getattr(entry, name) for entry in tallies] for name in ("label", "answered", "windows", "bce")]
    label, answered, windows, bce = (np.concatenate(part) for part in parts)
    return Tally(first.classes, number, label, answered, windows, bce)
