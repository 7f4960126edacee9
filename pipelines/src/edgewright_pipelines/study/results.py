"""Between finished cells and the report: cells as values, grouped by variant; what is missing stays missing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from edgewright_pipelines.study import plan, store
from edgewright_pipelines.study.plan import BASE, TREES, Cell
from edgewright_pipelines.study.settings import Loaded
from edgewright_pipelines.study.tally import Tally, pooled, remembered

FP32 = "fp32"


@dataclass(frozen=True, slots=True)
class Variant:
    """One file of one point of one family, over all its finished cells.

    by_day: of each finished seed; frequent: the same among the most frequent classes only; by_device, strong: all
    folds of a seed as one, for seeds whose folds are all finished; cells: the content of the by-day cells.
    """

    family: str
    point: str
    file: str
    by_day: tuple[Tally, ...]
    frequent: tuple[Tally, ...]
    by_device: tuple[Tally, ...]
    strong: tuple[Tally, ...]
    seeds: tuple[int, ...]
    cells: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        """Such as `ours/taylor-global-50-int8`."""
        return self.family if self.family == TREES else f"{self.family}/{self.point}-{self.file}"

    def files(self) -> tuple[Mapping[str, Any], ...]:
        """This file's part of each by-day cell."""
        return tuple(cell["files"][self.file] for cell in self.cells)

    def middle(self, key: str) -> float | None:
        """Median over seeds of a number that the file was measured to have."""
        found = [float(entry[key]) for entry in self.files() if entry.get(key) is not None]
        return median(found) if found else None

    def cell_middle(self, key: str) -> float | None:
        """Median over seeds of a number that its cell holds for all its files."""
        found = [float(cell[key]) for cell in self.cells if cell.get(key) is not None]
        return median(found) if found else None

    def validation(self, key: str) -> float | None:
        """Mean over seeds of a figure on the validation side, by which variants are chosen."""
        found = [float(entry["validation"][key]) for entry in self.files()]
        return sum(found) / len(found) if found else None


@dataclass(frozen=True, slots=True)
class Results:
    """All that is finished, the names of the cells that are not, and seconds of one core: taken, and for all cells."""

    variants: tuple[Variant, ...]
    missing: tuple[str, ...]
    total: int
    cpu_seconds: float
    estimated: float | None

    def find(self, family: str, point: str = BASE, file: str = FP32) -> Variant | None:
        """One variant by its parts."""
        for entry in self.variants:
            if (entry.family, entry.point, entry.file) == (family, point, file):
                return entry
        return None


def collect(loaded: Loaded, kept: store.Store, data: str) -> Results:
    """Read every finished cell that is not stale."""
    found: dict[Cell, dict[str, Any]] = {}
    missing = []
    cells = plan.cells(loaded)
    for cell in cells:
        content = kept.read(cell.name, store.digest(plan.decided_by(loaded, cell, data)))
        if content is None:
            missing.append(cell.name)
        else:
            found[cell] = content
    keys = dict.fromkeys((cell.family, cell.variant, file) for cell in found for file in found[cell]["files"])
    variants = tuple(_variant(loaded, found, *key) for key in keys)
    taken = {cell: float(content["cpuSeconds"]) for cell, content in found.items()}
    estimated = _estimated(cells, taken)
    return Results(variants, tuple(missing), len(cells), sum(taken.values()), estimated)


def _estimated(cells: Sequence[Cell], taken: Mapping[Cell, float]) -> float | None:
    """Seconds of one core for all cells: a missing one takes as long as finished ones of its kind do on average.

    None while a kind has no finished cell.
    """
    kinds: dict[tuple[str, bool], list[float]] = {}
    for cell, seconds in taken.items():
        kinds.setdefault((cell.family, cell.point is None), []).append(seconds)
    if any((cell.family, cell.point is None) not in kinds for cell in cells):
        return None
    means = {kind: sum(found) / len(found) for kind, found in kinds.items()}
    return sum(taken.get(cell, means[cell.family, cell.point is None]) for cell in cells)


def _variant(loaded: Loaded, found: Mapping[Cell, Mapping[str, Any]], family: str, point: str, file: str) -> Variant:
    mine = {cell: content for cell, content in found.items() if (cell.family, cell.variant) == (family, point)}
    days = {cell: content for cell, content in mine.items() if cell.fold is None and file in content["files"]}
    by_seed = [_folds(loaded, mine, seed, file) for seed in loaded.study.seeds]
    whole = [contents for contents in by_seed if contents]
    return Variant(
        family,
        point,
        file,
        by_day=tuple(_tally(content, file, "test") for content in days.values()),
        frequent=tuple(_tally(content, file, "testMostFrequent") for content in days.values()),
        by_device=tuple(pooled([_tally(content, file, "test") for content in contents]) for contents in whole),
        strong=tuple(pooled([_tally(content, file, "testStrong") for content in contents]) for contents in whole),
        seeds=tuple(cell.seed for cell in days),
        cells=tuple(days.values()),
    )


def _folds(loaded: Loaded, mine: Mapping[Cell, Mapping[str, Any]], seed: int, file: str) -> Sequence[Mapping[str, Any]]:
    """The contents of all folds of a seed in order, or nothing while one is missing."""
    found = {cell.fold: content for cell, content in mine.items() if cell.seed == seed and cell.fold is not None}
    whole = loaded.study.folds > 0 and len(found) == loaded.study.folds
    usable = whole and all(file in content["files"] for content in found.values())
    return [found[fold] for fold in sorted(key for key in found if key is not None)] if usable else []


def _tally(content: Mapping[str, Any], file: str, key: str) -> Tally:
    return remembered(content["files"][file][key], content["classes"])


def machines(variants: Iterable[Variant]) -> list[Mapping[str, Any]]:
    """Every machine on which a cell was measured, each once."""
    seen: dict[str, Mapping[str, Any]] = {}
    for variant in variants:
        for cell in variant.cells:
            seen[str(sorted(cell["machine"].items()))] = cell["machine"]
    return list(seen.values())
