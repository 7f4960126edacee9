"""Windows of the test split, which no training saw: what the demo's traffic sends."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgewright_pipelines import flow, recipe
from edgewright_pipelines.data import location, source

COUNT = 64


def windows(recipe_file: Path, workspace: Path) -> npt.NDArray[np.uint16]:
    """So many windows [64, window], spread over the test split; synthetic ones where there is no data."""
    loaded = recipe.load(recipe_file, quick=True)
    found, _ = source.obtain(location.locate(os.environ, Path.cwd()), workspace)
    test = flow.test_windows(loaded, found.traces)
    rows = np.linspace(0, len(test) - 1, COUNT).astype(int)
    return np.ascontiguousarray(test.watts[rows])
