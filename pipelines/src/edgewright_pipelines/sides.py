"""Between the split and training: the windows of its three sides, scored on windows that do not overlap."""

from collections.abc import Sequence
from dataclasses import dataclass

from edgewright_pipelines import splits, windows
from edgewright_pipelines.data.traces import Trace, of_subsets
from edgewright_pipelines.recipe import Recipe, SplitBy
from edgewright_pipelines.splits import Split
from edgewright_pipelines.windows import WindowSet


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """A split and its windows; windows do not overlap, so each second counts once."""

    split: Split
    train: WindowSet
    validation: WindowSet
    test: WindowSet


def of(recipe: Recipe, traces: Sequence[Trace]) -> Sides:
    """All three sides. Raises SplitError or WindowError for traces that cannot be divided or cut as asked."""
    split = split_of(recipe, traces)
    train, validation, test = (cut(recipe, split, side) for side in (split.train, split.validation, split.test))
    return Sides(split, train, validation, test)


def split_of(recipe: Recipe, traces: Sequence[Trace]) -> Split:
    """The recipe's split of the traces. Raises SplitError."""
    chosen = of_subsets(traces, recipe.data.subsets)
    window, hop = recipe.window.seconds, recipe.window.seconds
    if recipe.split.by is SplitBy.DEVICE:
        by = recipe.split
        return splits.by_device(
            chosen, min_devices=by.min_devices, folds=by.folds, fold=by.fold, seed=recipe.seed, window=window, hop=hop
        )
    return splits.by_day(
        chosen, min_days=recipe.data.min_days, seed=recipe.seed, top=recipe.data.top_classes, window=window, hop=hop
    )


def cut(recipe: Recipe, split: Split, side: Sequence[Trace]) -> WindowSet:
    """The windows of one side."""
    return windows.cut(side, split.classes, window=recipe.window.seconds, hop=recipe.window.seconds)
