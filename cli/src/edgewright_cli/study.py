"""`edgewright study`: the compression study, cell by cell, and the report made of the finished cells."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewright_cli import data as data_command
from edgewright_cli import expected
from edgewright_cli.data import WORKSPACE
from edgewright_cli.output import INTERRUPTED, JsonFlag, out, print_json, print_table, sentences
from edgewright_cli.progress import StageProgress
from edgewright_cli.train import source_of

if TYPE_CHECKING:
    from edgewright_pipelines.data.source import Source
    from edgewright_pipelines.study.settings import Loaded
    from edgewright_pipelines.study.store import Store

RESULTS = Path("results")
DOCUMENT = Path("docs/study.md")


def study(
    settings: Annotated[Path, typer.Argument(help="The study, a TOML file.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="A few small cells, kept apart in the workspace: a minute or two.")
    ] = False,
    recompute: Annotated[bool, typer.Option("--recompute", help="Compute finished cells again.")] = False,
    most: Annotated[int | None, typer.Option(help="Compute at most so many missing cells, then report.")] = None,
    family: Annotated[
        list[str] | None, typer.Option(help="Compute cells of this family only, such as trees; repeat it for more.")
    ] = None,
    data: data_command.DataOption = None,
    workspace: Annotated[Path, typer.Option(help="Where trained networks are kept and reused.")] = WORKSPACE,
    results: Annotated[Path, typer.Option(help="Where finished cells and study.json are kept.")] = RESULTS,
    document: Annotated[Path, typer.Option(help="The Markdown report.")] = DOCUMENT,
    json_output: JsonFlag = False,
) -> None:
    """Compute the cells that are missing, and write the report; Ctrl-C keeps what is finished.

    Examples:
      edgewright study pipelines/recipes/study.toml
      edgewright study pipelines/recipes/study.toml --family trees --family published
      edgewright study pipelines/recipes/study.toml --quick --json
    """
    from edgewright_pipelines.study import report
    from edgewright_pipelines.study import settings as front
    from edgewright_pipelines.study.store import Store

    with sentences(*expected.of_training(remote=False)):
        loaded = front.load(settings, quick=quick)
        source = source_of(data, workspace)
        pages = workspace / "study"
        places = report.Places(results, document, pages)
        if quick or source.synthetic:  # neither small nor made-up figures may stand among the committed ones
            places = report.Places(pages, pages / "study.md", pages)
        kept = Store(places.results / "study")
        computed = _computed(loaded, source, kept, workspace, recompute, most, family or [])
        summary = report.write(loaded, source, kept, places)
    summary |= {"computed": computed, "synthetic": source.synthetic}
    if json_output:
        print_json(summary)
    else:
        _tell(summary, places)
    if computed is None:
        raise typer.Exit(INTERRUPTED)


def _computed(
    loaded: "Loaded",
    source: "Source",
    kept: "Store",
    workspace: Path,
    recompute: bool,
    most: int | None,
    families: list[str],
) -> int | None:
    """How many cells were computed; None after Ctrl-C, with what was finished kept."""
    from edgewright_pipelines.stages import Stages
    from edgewright_pipelines.study import runs

    try:
        with StageProgress() as told:
            stages = Stages(workspace / "stages")
            only: dict[str, Any] = {"recompute": recompute, "most": most, "families": families}
            return runs.run(loaded, source, kept, stages, told, **only).computed
    except KeyboardInterrupt:
        return None


def _tell(summary: dict[str, Any], places: Any) -> None:
    rows = []
    for name, entry in summary["variants"].items():
        keys = ("macroF1ByDay", "dayMacroF1ByDay", "macroF1ByDevice", "bce")
        figures = [f"{entry[key]['mean']:.3f}" if entry[key] else "-" for key in keys]
        size = f"{entry['bytes']:,.0f}" if entry["bytes"] else "-"
        time = f"{entry['p50Microseconds']:.0f}" if entry["p50Microseconds"] else "-"
        rows.append((name, *figures, size, time))
    print_table(("VARIANT", "F1 window", "F1 day", "F1 by device", "BCE", "BYTES", "P50 us"), rows)
    cells = summary["cells"]
    out.print(f"{cells['finished']} of {cells['total']} cells finished; report in {places.document} and {places.page}")
