"""Stage `quantize.to_int8 → evaluate.measure → release.build`: figures of the exported file, never of the network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_pipelines import latency
from edgewright_pipelines.graph_costs import costs
from edgewright_pipelines.latency import Effort, Latency
from edgewright_pipelines.scores import Scores, score
from edgewright_pipelines.session import probabilities
from edgewright_pipelines.windows import WindowSet


@dataclass(frozen=True, slots=True)
class Measured:
    """One file's size in bytes, its numbers on paper, its time and its quality."""

    bytes: int
    parameters: int
    macs: int
    latency: Latency
    scores: Scores


def measure(
    model: bytes,
    windows: WindowSet,
    *,
    hop_seconds: int | None = None,
    timed: Latency | None = None,
    effort: Effort | None = None,
    scores: Scores | None = None,
) -> Measured:
    """Measure one file on `windows`.

    timed: give what `latency.measure` found for all variants together, which compares them more fairly than one run
    for each; scores: those of another task. Raises ValueError for an empty set.
    """
    scores = scores or score(probabilities(model, windows.watts), windows, hop_seconds=hop_seconds)
    taken = timed or latency.measure({"model": model}, example(windows), effort=effort)["model"]
    on_paper = costs(model)
    return Measured(len(model), on_paper.parameters, on_paper.macs, taken, scores)


def remembered(found: Mapping[str, Any]) -> Measured:
    """A measurement from what `dataclasses.asdict` and JSON made of it."""
    whole = {**found, "latency": Latency(**found["latency"]), "scores": Scores(**found["scores"])}
    return Measured(**whole)


def example(windows: WindowSet) -> npt.NDArray[np.uint16]:
    """The window that takes most energy: one to time files on, the same for all."""
    strongest = int(windows.watts.sum(axis=1, dtype=np.int64).argmax())
    return np.asarray(windows.watts[strongest])
