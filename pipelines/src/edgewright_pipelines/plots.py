"""The pictures of a run: how the loss fell, and where each variant lies between size, time and quality."""

from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from edgewright_pipelines.flow import Result


def draw(result: Result, folder: Path) -> Iterator[Path]:
    """Write the plots as PNG files into `folder` and yield each."""
    if result.history:
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([point.step for point in result.history], [point.loss for point in result.history])
        axes.set(xlabel="optimizer step", ylabel="training loss", title=result.recipe.name)
        yield _saved(figure, folder / "loss.png")
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for built in result.variants:
        measured = built.measured
        height = measured.parameters if result.synthetic else measured.scores.macro_f1
        axes.scatter(measured.latency.p50, height, s=20 + measured.bytes / 4000, alpha=0.6)
        axes.annotate(built.name, (measured.latency.p50, height), textcoords="offset points", xytext=(5, 5), fontsize=8)
    axes.set(
        xlabel="p50 of one window at one thread, µs (area: bytes)",
        ylabel="parameters (synthetic data: no score)" if result.synthetic else "macro-F1 for each window",
        title="variants",
    )
    yield _saved(figure, folder / "variants.png")


def _saved(figure: Figure, file: Path) -> Path:
    figure.savefig(file, dpi=120)
    return file
