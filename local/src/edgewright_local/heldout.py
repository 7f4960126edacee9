"""Traces and windows of the test split, which no training saw: what the demo replays through the agents."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgewright_pipelines import flow, recipe
from edgewright_pipelines.data import location, source
from edgewright_pipelines.data.traces import Trace

WINDOWS = 64
DAYS = 2


@dataclass(frozen=True, slots=True)
class HeldOut:
    """windows [64, window] in watts, spread over the test split; days: two whole traces for each node."""

    windows: npt.NDArray[np.uint16]
    days: dict[str, tuple[Trace, ...]]


def held_out(recipe_file: Path, workspace: Path, nodes: tuple[str, ...]) -> HeldOut:
    """Test windows and days of the recipe's split; synthetic ones where there is no data."""
    loaded = recipe.load(recipe_file, quick=True)
    found, _ = source.obtain(location.locate(os.environ, Path.cwd()), workspace)
    test = flow.test_windows(loaded, found.traces)
    rows = np.linspace(0, len(test) - 1, WINDOWS).astype(int)
    # the days that take most energy: most of their windows are active
    busiest = sorted(flow.test_traces(loaded, found.traces), key=lambda trace: -int(trace.watts.sum(dtype=np.int64)))
    days = {node: tuple(busiest[index :: len(nodes)][:DAYS]) for index, node in enumerate(nodes)}
    return HeldOut(np.ascontiguousarray(test.watts[rows]), days)
