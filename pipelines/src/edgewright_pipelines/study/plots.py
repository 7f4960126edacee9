"""Inside the report: its pictures, as SVG text that stands inside the page and needs no other file."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from edgewright_pipelines.study import tally
from edgewright_pipelines.study.plan import BASE, TREES
from edgewright_pipelines.study.results import FP32, Variant
from edgewright_pipelines.study.summary import Summary
from edgewright_pipelines.study.tally import Tally

SALT = "edgewright"  # the same pictures for the same figures: matplotlib names parts at random otherwise


def pareto(summary: Summary) -> str:
    """Macro-F1 by day against p50; the area is the file's size."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for family in dict.fromkeys(row.variant.family for row in summary.rows if row.variant.family != TREES):
        rows = [row for row in summary.rows if row.variant.family == family and row.window and row.p50 and row.bytes]
        axes.scatter(
            [row.p50 or 0.0 for row in rows],
            [row.window.mean if row.window else 0.0 for row in rows],
            s=[10 + (row.bytes or 0.0) / 3000 for row in rows],
            alpha=0.5,
            label=family,
        )
    trees = next((row for row in summary.rows if row.variant.family == TREES and row.window), None)
    if trees is not None and trees.window is not None:
        axes.axhline(trees.window.mean, linestyle="--", color="gray", label="ExtraTrees")
    axes.set(xscale="log", xlabel="p50 of one window, one thread, µs (area: bytes)", ylabel="macro-F1 of windows")
    axes.legend()
    return _svg(figure)


def against_ratio(summary: Summary, family: str) -> str:
    """F1 against the pruning ratio for each method, FP32 files."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    mine = [row for row in summary.rows if row.variant.family == family and row.variant.file == FP32 and row.window]
    whole = next((row.window.mean for row in mine if row.variant.point == BASE and row.window), None)
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in mine:
        if row.variant.point != BASE and row.window:
            method, _, percent = row.variant.point.rpartition("-")
            curves.setdefault(method, [] if whole is None else [(0.0, whole)]).append((int(percent), row.window.mean))
    for method, points in sorted(curves.items()):
        places, heights = zip(*sorted(points), strict=True)
        axes.plot(places, heights, marker="o", label=method, linestyle="--" if "local" in method else "-")
    axes.set(xlabel="part of the channels removed, %", ylabel="macro-F1 of windows by day", title=family)
    if curves:
        axes.legend(fontsize=8)
    return _svg(figure)


def confusion(variant: Variant) -> str:
    """Answers for each true class, as parts of its windows, over all seeds."""
    table = sum_of(variant.by_day)
    parts = table / np.maximum(1, table.sum(axis=1, keepdims=True))
    classes = variant.by_day[0].classes
    figure = Figure(figsize=(10, 9), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=7)
    axes.set_yticks(range(len(classes)), classes, fontsize=7)
    axes.set(xlabel="answer", ylabel="truth", title=variant.name)
    return _svg(figure)


def sum_of(tallies: Sequence[Tally]) -> tally.Counts:
    """The confusion of several seeds together."""
    return np.asarray(np.sum([tally.confusion(found) for found in tallies], axis=0), dtype=np.int64)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": SALT}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
