"""First stage, `traces.read → windows.cut`: a folder of files becomes day traces and a report of what was wrong."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgewright_pipelines.data.report import DataReport, Reporter, silent


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One device, one day. watts: uint16 [86400], one value a second from midnight; 0 where nothing is known.

    name: the file below the data folder without its ending, unique; device: `class/plug`; date: yyyy-mm-dd;
    gap_seconds: seconds of the day that no reading covers, neither directly nor by holding the last value.
    """

    name: str
    appliance: str
    device: str
    subset: str
    date: str
    watts: npt.NDArray[np.uint16]
    gap_seconds: int


def read(directory: Path, cache: Path | None = None, report: Reporter = silent) -> tuple[list[Trace], DataReport]:
    """Read every trace below `directory`."""
    raise NotImplementedError  # the body follows in the next commit of this file
