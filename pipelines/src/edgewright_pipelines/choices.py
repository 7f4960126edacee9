"""What travels between a sweep and its workers, by value; light to import, because every worker does it first."""

from dataclasses import dataclass
from pathlib import Path

from edgewright_pipelines.recipe import Precision, Pruning, Way


@dataclass(frozen=True, slots=True)
class Choice:
    """One point of the search: how to prune, and how to round (None: not at all)."""

    pruning: Pruning
    way: Way | None

    @property
    def name(self) -> str:
        """The variant's name."""
        if self.way is None:
            return f"{self.pruning.name}-{Precision.FP32}"
        return f"{self.pruning.name}-{Precision.INT8}" + ("" if self.way is Way.PTQ else f"-{self.way}")


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker needs to know. The folders must be there where it runs; a worker elsewhere needs them shared."""

    recipe: str
    data: Path | None
    workspace: Path
    choice: Choice


@dataclass(frozen=True, slots=True)
class Outcome:
    """On the validation side: what the search goes by. p50 in microseconds, while other trials run beside it."""

    macro_f1: float
    bytes: int
    p50: float
    bce: float
