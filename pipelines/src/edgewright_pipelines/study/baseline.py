"""Beside the networks: ExtraTrees on hand-made features of the same windows; what a network must beat."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import ExtraTreesClassifier  # type: ignore[import-untyped]

from edgewright_pipelines.windows import WindowSet

CHUNK = 512  # windows at once; more would only take memory
QUANTILES = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100)
STEP_QUANTILES = (50, 75, 90, 95, 99, 99.9, 100)
STEPS = (2, 5, 10, 50, 200)
LEVELS = (0, 1, 2, 3, 5, 15, 50, 100, 500, 1500)
LAGS = (1, 2, 4, 8, 16, 32, 60, 120)
FEATURES_TRIED = 0.3  # part of the features that a split looks at; the root of their number lost a point
PART_SECONDS = 64

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Forest:
    """A fitted forest whose answers have a column for each class, also for those it never saw."""

    model: ExtraTreesClassifier
    classes: int

    def probabilities(self, windows: npt.NDArray[Any]) -> Floats:
        """Float32 [n, classes] for windows [n, window] in watts."""
        answers = np.zeros((len(windows), self.classes), dtype=np.float32)
        if len(windows):
            answers[:, self.model.classes_] = self.model.predict_proba(features(windows))
        return answers


def fit(training: WindowSet, *, trees: int, seed: int) -> Forest:
    """Fit a forest; the same seed gives the same one."""
    model = ExtraTreesClassifier(trees, max_features=FEATURES_TRIED, random_state=seed, n_jobs=1)
    model.fit(features(training.watts), training.label)
    return Forest(model, len(training.classes))


def features(windows: npt.NDArray[Any]) -> Floats:
    """Levels, steps, shares, rhythm and run lengths of windows [n, window]: float32 [n, features]."""
    parts = [_features(windows[start : start + CHUNK]) for start in range(0, len(windows), CHUNK)]
    return np.concatenate(parts)


def _features(windows: npt.NDArray[Any]) -> Floats:
    watts = windows.astype(np.float32)
    logs = np.log1p(watts)
    moves = np.diff(watts, axis=1)
    steps = np.abs(moves)
    columns = [
        *np.log1p(np.percentile(watts, QUANTILES, axis=1)),
        *np.log1p(np.percentile(steps, STEP_QUANTILES, axis=1)),
        logs.mean(1),
        logs.std(1),
        np.log1p(watts.mean(1)),
        np.log1p(watts.std(1)),
        np.log1p(steps.mean(1)),
        (steps > 0).mean(1),
        *((steps > step).mean(1) for step in STEPS),
        *((watts > level).mean(1) for level in LEVELS),
        *((moves > step).sum(1) for step in STEPS),
        *_parts(watts),
        *_rhythm(logs),
        *_runs(moves != 0),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _parts(watts: Floats) -> list[Floats]:
    """How minutes differ from one another, and how restless they are."""
    length = max(1, min(PART_SECONDS, watts.shape[1]))
    parts = watts[:, : watts.shape[1] // length * length].reshape(len(watts), -1, length)
    spread = np.log1p(parts.max(2) - parts.min(2))
    return [np.log1p(parts.mean(2).std(1)), spread.mean(1), np.log1p(np.median(parts.std(2), axis=1))]


def _rhythm(logs: Floats) -> list[Floats]:
    """Autocorrelation at lags of seconds, and power in octaves of frequency."""
    centered = logs - logs.mean(axis=1, keepdims=True)
    power = (centered**2).mean(1) + 1e-9
    lags = [lag for lag in LAGS if lag < logs.shape[1]]
    found = [(centered[:, lag:] * centered[:, :-lag]).mean(1) / power for lag in lags]
    spectrum = np.abs(np.fft.rfft(centered, axis=1)) ** 2
    spectrum /= spectrum.sum(axis=1, keepdims=True) + 1e-9
    edges = [2**octave for octave in range(int(np.log2(spectrum.shape[1])) + 1)]
    return [*found, *(spectrum[:, low:high].sum(1) for low, high in pairwise(edges))]


def _runs(changed: npt.NDArray[np.bool_]) -> Floats:
    """Quantiles of the seconds between two changes of the reading, as logarithms: [6, n]."""
    rows = []
    for row in changed:
        runs = np.diff(np.flatnonzero(row))
        rows.append(np.percentile(runs, (5, 25, 50, 75, 95, 100)) if len(runs) else np.full(6, len(row)))
    return np.log1p(np.asarray(rows, dtype=np.float32)).T
