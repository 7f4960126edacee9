"""Front door of the study: one TOML file names the families of networks, their grid and which cells are run."""

import json
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from edgewright_contract.release import Importance, Scope
from edgewright_pipelines import recipe as recipes
from edgewright_pipelines.recipe import Pruning, Recipe, RecipeError, Split, SplitBy
from edgewright_pipelines.recipe_errors import sentences
from edgewright_pipelines.recipe_sections import Section

Ratio = Annotated[float, Field(gt=0, lt=1)]
NAME = r"^[a-z][a-z0-9]{0,31}$"


class Grid(Section):
    """Each importance with each scope and each ratio."""

    importances: tuple[Importance, ...] = Field(min_length=1, description="a list of l1, l2, taylor and random")
    scopes: tuple[Scope, ...] = Field(min_length=1, description="a list of local and global")
    ratios: tuple[Ratio, ...] = Field(
        min_length=1, description="a list of parts of the channels to remove, each more than 0 and less than 1"
    )

    def points(self) -> tuple[Pruning, ...]:
        """In the order of the lists."""
        return tuple(
            Pruning(importance=importance, scope=scope, ratio=ratio)
            for importance in self.importances
            for scope in self.scopes
            for ratio in self.ratios
        )


class Family(Section):
    """One network and how it is trained, by its own recipe, and the points that are studied of it."""

    name: str = Field(pattern=NAME, description="lower-case letters and digits, such as published")
    recipe: str = Field(description="a recipe file beside this one")
    grid: Grid | None = Field(None, description="a table of importances, scopes and ratios; else the recipe's pruning")
    dynamic: bool = Field(False, description="whether INT8 with ranges found at run time is measured too")
    by_device: tuple[str, ...] = Field(("base",), description="points that are run by device too, such as base")
    device_recipe: str | None = Field(
        None, description="a recipe file beside this one for the cells by device; else the family's"
    )


class Trees(Section):
    """ExtraTrees on hand-made features of the same windows: what a network must beat."""

    trees: int = Field(300, ge=1, le=10_000, description="number of trees: 1 to 10000")
    hop_seconds: int = Field(1024, ge=1, description="between training windows: 1 second or more")


class Study(Section):
    """All of `study.toml`."""

    name: str = Field(pattern=NAME, description="lower-case letters and digits")
    seeds: tuple[int, ...] = Field(min_length=1, description="seeds of training, each a whole number")
    folds: int = Field(5, ge=0, description="by-device folds that are run: 0 (none) to the split's folds")
    most_frequent: int = Field(32, ge=2, description="classes that the published study had: scored beside all")
    resamples: int = Field(1000, ge=20, le=100_000, description="of the bootstrap: 20 to 100000")
    trees: Trees = Field(default_factory=Trees, description="a table [trees]")
    families: tuple[Family, ...] = Field(min_length=1, description="tables [[families]]")

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [family.name for family in self.families]
        if "trees" in names or len(set(names)) != len(names):
            raise ValueError("two families would have the same name (trees is the baseline's); give each its own")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds names one seed twice; name each once")
        return self


class Loaded(Section):
    """A study with the recipe of each family, and that of its cells by device, in the order of the families."""

    study: Study
    recipes: tuple[Recipe, ...]
    device_recipes: tuple[Recipe, ...]

    def recipe(self, family: str) -> Recipe:
        """The by-day recipe of a family; the trees learn from the first family's windows."""
        return self._of(family, self.recipes)

    def device_recipe(self, family: str) -> Recipe:
        """The recipe that by_device puts on each fold."""
        return self._of(family, self.device_recipes)

    def _of(self, family: str, found: tuple[Recipe, ...]) -> Recipe:
        names = [entry.name for entry in self.study.families]
        return found[names.index(family) if family in names else 0]


def load(path: Path, quick: bool = False) -> Loaded:
    """Read a study and its recipes; `quick` lays its `[quick]` table and theirs over the rest.

    Raises RecipeError, whose text is one sentence for each mistake.
    """
    table = recipes.read(path)
    overrides = table.pop("quick", {})
    study = _validated(path, recipes.overlaid(table, overrides) if quick else table)
    found = tuple(_recipe(path, family, quick) for family in study.families)
    if lone := [entry.split for entry in found if entry.split.by is not SplitBy.DAY]:
        raise RecipeError(f'{path}: a family\'s recipe has split.by = "{lone[0].by}"; use "day", folds are added here.')
    if study.folds > found[0].split.folds:
        raise RecipeError(f"{path}: folds = {study.folds}, but the split has {found[0].split.folds}; use at most that.")
    devices = tuple(_device_recipe(path, *each, quick) for each in zip(study.families, found, strict=True))
    return Loaded(study=study, recipes=found, device_recipes=devices)


def by_device(recipe: Recipe, fold: int) -> Recipe:
    """The same recipe on one fold of devices."""
    split = recipe.split.model_copy(update={"by": SplitBy.DEVICE, "fold": fold})
    return recipe.model_copy(update={"split": Split.model_validate(split.model_dump())})


def _recipe(path: Path, family: Family, quick: bool) -> Recipe:
    found = recipes.load(path.parent / family.recipe, quick=quick)
    pruning = family.grid.points() if family.grid else found.compression.pruning
    compression = found.compression.model_copy(update={"pruning": pruning})
    return found.model_copy(update={"compression": compression})


def _device_recipe(path: Path, family: Family, by_day: Recipe, quick: bool) -> Recipe:
    """The recipe of a family's cells by device, which learn from the windows that all other cells are scored on."""
    found = by_day if family.device_recipe is None else recipes.load(path.parent / family.device_recipe, quick=quick)
    for part in ("seed", "data", "window"):
        if getattr(found, part) != getattr(by_day, part):
            raise RecipeError(
                f"{path}: {part} of {family.device_recipe} is not that of {family.recipe}; make them one."
            )
    named = {point.name for point in found.compression.pruning} | {"base"}
    if strange := [point for point in family.by_device if point not in named]:
        raise RecipeError(f"{path}: family {family.name} has no point {strange[0]}; it has {', '.join(sorted(named))}.")
    return found


def _validated(path: Path, table: dict[str, Any]) -> Study:
    try:
        return Study.model_validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        raise RecipeError("\n".join(sentences(path, Study, error, ""))) from None
