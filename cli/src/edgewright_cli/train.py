"""`edgewright train`: from a recipe to measured variants, and to a signed release in MLflow when asked."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewright_cli import data as data_command
from edgewright_cli import expected, variants
from edgewright_cli.data import WORKSPACE
from edgewright_cli.output import JsonFlag, err, print_json, sentences
from edgewright_cli.progress import StageProgress

if TYPE_CHECKING:
    from edgewright_pipelines.data.source import Source


def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a TOML file.")],
    quick: Annotated[bool, typer.Option("--quick", help="Lay the recipe's quick table over it: minutes.")] = False,
    data: data_command.DataOption = None,
    workspace: Annotated[Path, typer.Option(help="Where finished stages are kept and reused.")] = WORKSPACE,
    mlflow: Annotated[str | None, typer.Option(help="URL of an MLflow server to publish a signed release to.")] = None,
    alias: Annotated[str | None, typer.Option(help="Alias to move to the published version.")] = None,
    keys: Annotated[Path | None, typer.Option(help="Folder of `edgewright keys new`; needed with --mlflow.")] = None,
    only: Annotated[str | None, typer.Option(help="Publish only these variants, separated by commas.")] = None,
    json_output: JsonFlag = False,
) -> None:
    """Train, prune, quantize and measure; a rerun reuses every stage whose inputs did not change.

    Examples:
      edgewright train pipelines/recipes/identify.toml --quick
      edgewright train pipelines/recipes/identify.toml --mlflow http://127.0.0.1:5000 --alias production --keys keys
    """
    from edgewright_pipelines import flow, signing_keys, stages
    from edgewright_pipelines import recipe as recipes

    started = time.monotonic()
    with sentences(*expected.of_training(remote=mlflow is not None)):
        if mlflow and not keys:
            raise signing_keys.KeysError("--mlflow needs --keys: make them with `edgewright keys new keys`")
        loaded = recipes.load(recipe, quick=quick)
        source = source_of(data, workspace)
        with StageProgress() as report:
            result = flow.run(loaded, source, stages.Stages(workspace / "stages"), report)
        chosen = only.split(",") if only else None
        summary = variants.released(result, workspace, mlflow=mlflow, keys=keys, alias=alias, only=chosen)
    summary["seconds"] = round(time.monotonic() - started, 1)
    if json_output:
        print_json(summary)
        return
    variants.tell(summary)


def source_of(data: Path | None, workspace: Path) -> "Source":
    """The traces, with a word where they are made up or incomplete."""
    from edgewright_pipelines.data import source, synthetic

    found, report = source.obtain(data_command.located(data), workspace)
    if found.synthetic:
        err.print(synthetic.BANNER, style="bold yellow")
    if report is not None and report.skipped:
        err.print(f"{len(report.skipped)} files were skipped; `edgewright data report` names them")
    return found
