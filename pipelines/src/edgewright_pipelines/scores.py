"""Inside evaluation: from probabilities and truth to figures; pure.

Two macro-F1: of windows, and of days, where a day's class is the one with the largest sum of log-probabilities.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_pipelines.windows import WindowSet

CLIP = 1e-7
WATT_SECONDS_PER_KWH = 3_600_000.0

Floats = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Scores:
    """Quality of answers on a set of windows.

    bce: mean over windows of the binary cross-entropy summed over classes; macro_f1 and macro_f1_by_day: mean over
    the classes that occur; f1_by_class: of windows, only classes that occur or were answered; energy_error_kwh:
    energy given to a class minus the energy that it took;
    mae_watts, sae, match_rate: of the second task only (see `disaggregate.measured`).
    """

    windows: int
    days: int
    bce: float
    macro_f1: float
    macro_f1_by_day: float
    accuracy: float
    accuracy_by_day: float
    f1_by_class: dict[str, float]
    energy_kwh: dict[str, float]
    energy_error_kwh: dict[str, float]
    mae_watts: float | None = None
    sae: float | None = None
    match_rate: float | None = None


def score(probabilities: Floats, windows: WindowSet, *, hop_seconds: int | None = None) -> Scores:
    """Figures of probabilities [n, classes] for `windows` [n].

    hop_seconds: distance of the windows, so that a second in several windows counts once in energy; None if they do
    not overlap. Raises ValueError for an empty set or probabilities of another shape.
    """
    if not len(windows):
        raise ValueError("There are no windows to score; check the split and whether its days have active windows.")
    if probabilities.shape != (len(windows), len(windows.classes)):
        raise ValueError(
            f"The probabilities have the shape {probabilities.shape}; {len(windows)} windows of"
            f" {len(windows.classes)} classes need {(len(windows), len(windows.classes))}."
        )
    logs = np.log(np.clip(probabilities.astype(np.float64), CLIP, 1.0))
    answers = probabilities.argmax(axis=1)
    day_truth, day_answers = _by_day(logs, windows)
    share = 1.0 if hop_seconds is None else min(1.0, hop_seconds / windows.watts.shape[1])
    energy, error = _energy(answers, windows, share)
    by_class = f1(windows.label, answers)
    return Scores(
        windows=len(windows),
        days=len(day_truth),
        bce=_bce(probabilities, windows.label),
        macro_f1=_macro(by_class, windows.label),
        macro_f1_by_day=_macro(f1(day_truth, day_answers), day_truth),
        accuracy=float((answers == windows.label).mean()),
        accuracy_by_day=float((day_answers == day_truth).mean()),
        f1_by_class={windows.classes[index]: value for index, value in by_class.items()},
        energy_kwh={name: float(energy[index]) for index, name in enumerate(windows.classes)},
        energy_error_kwh={name: float(error[index]) for index, name in enumerate(windows.classes)},
    )


def f1(truth: Labels, answers: Labels) -> dict[int, float]:
    """F1 of each class that occurs in truth or answers."""
    classes = np.union1d(truth, answers)
    return {int(index): _f1(truth == index, answers == index) for index in classes}


def _f1(truth: npt.NDArray[np.bool_], answers: npt.NDArray[np.bool_]) -> float:
    return 2 * float((truth & answers).sum()) / float(truth.sum() + answers.sum())


def _macro(by_class: dict[int, float], truth: Labels) -> float:
    """Over the classes that occur in truth: one more that is answered must not count as a class with F1 0."""
    return float(np.mean([by_class[int(index)] for index in np.unique(truth)]))


def _bce(probabilities: Floats, label: Labels) -> float:
    clipped = np.clip(probabilities.astype(np.float64), CLIP, 1 - CLIP)
    truth = np.zeros_like(clipped)
    truth[np.arange(len(label)), label] = 1.0
    return float(-(truth * np.log(clipped) + (1 - truth) * np.log(1 - clipped)).sum(axis=1).mean())


def _by_day(logs: Floats, windows: WindowSet) -> tuple[Labels, Labels]:
    days, first, inverse = np.unique(windows.day, return_index=True, return_inverse=True)
    sums = np.zeros((len(days), logs.shape[1]))
    np.add.at(sums, inverse, logs)
    return windows.label[first], sums.argmax(axis=1)


def _energy(answers: Labels, windows: WindowSet, share: float) -> tuple[Floats, Floats]:
    """True energy and error of each class, kWh."""
    kwh = windows.watts.sum(axis=1, dtype=np.float64) * share / WATT_SECONDS_PER_KWH
    truth, given = (
        np.bincount(labels, weights=kwh, minlength=len(windows.classes)).astype(np.float64)
        for labels in (windows.label, answers)
    )
    return truth, given - truth
