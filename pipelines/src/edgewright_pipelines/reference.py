"""Beside `release.build`: what an exported file answers on validation windows, which nodes compare their own with.

An edge node has no labels. What it can see is whether answers and inputs are still spread as they were when the release
was judged: the population stability index over a few bins, whose behavior by chance is known (Yurdakul and Naranjo,
Journal of Risk Model Validation 14(4), 2020).
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgewright_contract.release import Histogram, Reference
from edgewright_pipelines.session import probabilities
from edgewright_pipelines.windows import WindowSet

WINDOWS: Final = 1_000
"""So many are answered, spread evenly: what they add to a node's own noise is a twentieth of it."""
BINS: Final = 4
"""A node sees some forty windows in two days: with more bins chance alone would look like drift."""
KNOWN: Final = 0.95
"""Share of the right answers that the threshold lets pass."""


def measure(onnx: bytes, validation: WindowSet, tolerance: float) -> Reference | None:
    """Answers of the file to validation windows; None where it had none right, so that no threshold can be told.

    The threshold is the confidence that `KNOWN` of the right answers reach: the highest probability tells right from
    wrong and strange inputs from known ones (Hendrycks and Gimpel, arXiv 1610.02136).

    tolerance: by how much another CPU's probabilities may differ; no two edges lie closer.
    """
    rows = np.unique(np.linspace(0, len(validation) - 1, min(WINDOWS, len(validation))).astype(np.int64))
    watts = validation.watts[rows]
    answers = probabilities(onnx, watts)
    confidence = answers.max(axis=1)
    right = confidence[answers.argmax(axis=1) == validation.label[rows]]
    if not len(right):
        return None
    threshold = min(1.0, float(np.quantile(right, 1 - KNOWN, method="lower")))
    return Reference(
        windows=len(rows),
        threshold=threshold,
        unknown_ratio=float(np.mean(confidence < threshold)),
        confidence=histogram(confidence, apart=tolerance, most=1.0),
        mean_watts=histogram(watts.mean(axis=1), apart=1.0),
    )


def histogram(values: npt.NDArray[Any], *, apart: float, most: float = float("inf")) -> Histogram:
    """Bins that hold about equally many of the values [n], with edges at least `apart` from each other and from `most`.

    Values that crowd together make fewer bins: an edge among them would move with the last digit of the arithmetic.
    """
    edges: list[float] = []
    for edge in np.quantile(values, np.arange(1, BINS) / BINS).tolist():
        if edge + apart <= most and (not edges or edge - edges[-1] >= apart):
            edges.append(float(edge))
    return Histogram(edges=edges, counts=_counts(values, edges))


def _counts(values: npt.NDArray[Any], edges: Sequence[float]) -> list[int]:
    found: list[int] = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1).tolist()
    return found
