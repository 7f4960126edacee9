"""Inside the report: every figure with its interval, as `results/study.json` holds it and as the pages show it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgewright_pipelines.study import tally
from edgewright_pipelines.study.intervals import Interval, interval, paired
from edgewright_pipelines.study.plan import BASE, TREES
from edgewright_pipelines.study.results import FP32, Results, Variant, machines
from edgewright_pipelines.study.settings import Loaded


@dataclass(frozen=True, slots=True)
class Row:
    """One variant's figures; None where its cells are missing."""

    variant: Variant
    bce: Interval | None
    window: Interval | None
    day: Interval | None
    accuracy: Interval | None
    frequent: Interval | None
    device: Interval | None  # mean of folds
    device_pooled: Interval | None
    strong: Interval | None
    bytes: float | None
    p50: float | None
    eager: float | None  # of the network in torch, before any rounding
    base_p50: float | None
    base_eager: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """All rows, the differences to the trees, and the best INT8 variant of each family as validation chose it."""

    rows: tuple[Row, ...]
    against_trees: Mapping[str, Interval]
    against_trees_by_device: Mapping[str, Interval]
    best: Mapping[str, str]

    def row(self, name: str) -> Row | None:
        """By the variant's name."""
        return next((row for row in self.rows if row.variant.name == name), None)


def summarize(loaded: Loaded, results: Results) -> Summary:
    """Every figure, from tallies only."""
    draws = loaded.study.resamples
    rows = tuple(_row(variant, draws) for variant in results.variants)
    trees = next((variant for variant in results.variants if variant.family == TREES), None)
    names = {family.name: _best(family.name, results) for family in loaded.study.families}
    best = {family: name for family, name in names.items() if name}
    finalists = {*best.values(), *(f"{family.name}/{BASE}-{FP32}" for family in loaded.study.families)}
    against, by_device = {}, {}
    for row in rows:
        if trees is None or row.variant.name not in finalists:
            continue
        if (found := paired(row.variant.by_day, trees.by_day, tally.window_f1, resamples=draws)) is not None:
            against[row.variant.name] = found
        if (found := paired(row.variant.by_device, trees.by_device, DEVICE_F1, resamples=draws)) is not None:
            by_device[row.variant.name] = found
    return Summary(rows, against, by_device, best)


DEVICE_F1 = tally.mean_of_folds(tally.window_f1)

MOST_LOSS = 0.005
"""Of macro-F1 on validation, from the base to a variant that counts as compressed without loss."""


def _best(family: str, results: Results) -> str | None:
    """The smallest compressed file that loses at most half a point on validation; else the one that loses least."""
    base = results.find(family)
    compressed = [
        entry for entry in results.variants if entry.family == family and entry.cells and entry.file.startswith("int8")
    ]
    if base is None or not base.cells or not compressed:
        return None
    wanted = (base.validation("macro_f1") or 0.0) - MOST_LOSS
    without_loss = [entry for entry in compressed if (entry.validation("macro_f1") or 0.0) >= wanted]
    if without_loss:
        return min(without_loss, key=lambda entry: (entry.middle("bytes") or np.inf, entry.name)).name
    return max(compressed, key=lambda entry: (entry.validation("macro_f1") or 0.0, entry.name)).name


def _row(variant: Variant, draws: int) -> Row:
    def of(found: Sequence[tally.Tally], figure: tally.Figure) -> Interval | None:
        return interval(found, figure, resamples=draws)

    return Row(
        variant,
        bce=of(variant.by_day, tally.bce),
        window=of(variant.by_day, tally.window_f1),
        day=of(variant.by_day, tally.day_f1),
        accuracy=of(variant.by_day, tally.window_accuracy),
        frequent=of(variant.frequent, tally.window_f1),
        device=of(variant.by_device, DEVICE_F1),
        device_pooled=of(variant.by_device, tally.window_f1),
        strong=of(variant.strong, tally.window_f1),
        bytes=variant.middle("bytes"),
        p50=variant.middle("p50Microseconds"),
        eager=variant.cell_middle("eagerP50Microseconds"),
        base_p50=variant.cell_middle("baseP50Microseconds"),
        base_eager=variant.cell_middle("baseEagerP50Microseconds"),
    )


def as_json(loaded: Loaded, results: Results, summary: Summary, versions: Mapping[str, str]) -> dict[str, Any]:
    """What `results/study.json` holds; figures of missing cells are null."""
    return {
        "study": loaded.study.name,
        "seeds": list(loaded.study.seeds),
        "versions": dict(versions),
        "machines": machines(results.variants),
        "cells": {"finished": results.total - len(results.missing), "total": results.total},
        "missing": list(results.missing),
        "cpuSeconds": round(results.cpu_seconds),
        "estimatedCpuSeconds": None if results.estimated is None else round(results.estimated),
        "best": dict(summary.best),
        "againstTrees": {name: _told(found) for name, found in summary.against_trees.items()},
        "againstTreesByDevice": {name: _told(found) for name, found in summary.against_trees_by_device.items()},
        "variants": {row.variant.name: _variant(row) for row in summary.rows},
    }


def _variant(row: Row) -> dict[str, Any]:
    return {
        "seeds": list(row.variant.seeds),
        "bce": _told(row.bce),
        "macroF1ByDay": _told(row.window),
        "dayMacroF1ByDay": _told(row.day),
        "accuracyByDay": _told(row.accuracy),
        "macroF1ByDayMostFrequent": _told(row.frequent),
        "macroF1ByDevice": _told(row.device),
        "macroF1ByDevicePooled": _told(row.device_pooled),
        "macroF1ByDeviceStrong": _told(row.strong),
        "validationMacroF1": _rounded(row.variant.validation("macro_f1")),
        "bytes": None if row.bytes is None else round(row.bytes),
        "p50Microseconds": _rounded(row.p50, 1),
        "eagerP50Microseconds": _rounded(row.eager, 1),
        "baseP50Microseconds": _rounded(row.base_p50, 1),
        "baseEagerP50Microseconds": _rounded(row.base_eager, 1),
    }


def _told(found: Interval | None) -> dict[str, float] | None:
    return None if found is None else {key: round(value, 4) for key, value in asdict(found).items()}


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)
