"""Between the settings and the runs: which cells there are, in which order, and what decides each; pure."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgewright_pipelines.recipe import Pruning, Recipe, RecipeError
from edgewright_pipelines.study.settings import Loaded, by_device

CODE: Final = 1
"""Raised by hand when the study's code changes what a cell holds."""

TREES: Final = "trees"
BASE: Final = "base"


@dataclass(frozen=True, slots=True)
class Cell:
    """One training, pruned to one point, on one split: every file that is made of it.

    fold: None for the split by day; point: None for the whole network and for trees.
    """

    family: str
    fold: int | None
    seed: int
    point: Pruning | None

    @property
    def split(self) -> str:
        """`day`, or `device0` and on."""
        return "day" if self.fold is None else f"device{self.fold}"

    @property
    def variant(self) -> str:
        """`base` or the point's name."""
        return self.point.name if self.point else BASE

    @property
    def name(self) -> str:
        """Unique; the name of its file."""
        return f"{self.family}.{self.split}.{self.seed}.{self.variant}"


def cells(loaded: Loaded) -> tuple[Cell, ...]:
    """The first seed of everything first, so that a broken-off study says something about all of it."""
    return tuple(cell for seed in loaded.study.seeds for cell in _of_seed(loaded, seed))


def of_families(cells: Sequence[Cell], families: Collection[str]) -> tuple[Cell, ...]:
    """The cells of these families, in their order; all for none. Raises RecipeError for a name that no cell has."""
    known = dict.fromkeys(cell.family for cell in cells)
    if strange := [name for name in families if name not in known]:
        raise RecipeError(f"The study has no family {strange[0]}; it has {', '.join(known)}.")
    return tuple(cell for cell in cells if not families or cell.family in families)


def _of_seed(loaded: Loaded, seed: int) -> Iterator[Cell]:
    study = loaded.study
    folds = range(study.folds)
    yield Cell(TREES, None, seed, None)
    for family, recipe in zip(study.families, loaded.recipes, strict=True):
        for point in (None, *recipe.compression.pruning):
            yield Cell(family.name, None, seed, point)
    for fold in folds:
        yield Cell(TREES, fold, seed, None)
        for family, recipe in zip(study.families, loaded.device_recipes, strict=True):
            for point in (None, *recipe.compression.pruning):
                if (point.name if point else BASE) in family.by_device:
                    yield Cell(family.name, fold, seed, point)


def recipe_of(loaded: Loaded, cell: Cell) -> Recipe:
    """The recipe whose split and windows the cell uses; its seed is the split's, the same for all cells."""
    if cell.fold is None:
        return loaded.recipe(cell.family)
    return by_device(loaded.device_recipe(cell.family), cell.fold)


def decided_by(loaded: Loaded, cell: Cell, data: str) -> dict[str, Any]:
    """All that decides a cell's figures, besides the machine that measured times."""
    recipe = recipe_of(loaded, cell)
    parts: dict[str, Any] = {"code": CODE, "data": data, "cell": cell.name, "seed": cell.seed}
    common = recipe.model_dump(mode="json", include={"seed", "data", "split", "window"})
    if cell.family == TREES:
        return {**parts, "recipe": common, "trees": loaded.study.trees.model_dump(mode="json")}
    network = recipe.model_dump(mode="json", include={"network", "training"})
    compression = recipe.compression.model_dump(mode="json", exclude={"pruning"})
    family = next(entry for entry in loaded.study.families if entry.name == cell.family)
    point = cell.point.model_dump(mode="json") if cell.point else None
    how = {"compression": compression, "point": point, "dynamic": family.dynamic}
    return {**parts, "recipe": common | network, "most_frequent": loaded.study.most_frequent, **how}
