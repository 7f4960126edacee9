"""`edgewright sweep`: search pruning and rounding instead of a grid; what none beats becomes the release."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewright_cli import data as data_command
from edgewright_cli import expected, variants
from edgewright_cli.data import WORKSPACE
from edgewright_cli.output import INTERRUPTED, JsonFlag, err, print_json, sentences
from edgewright_cli.progress import StageProgress
from edgewright_cli.train import source_of

if TYPE_CHECKING:
    from edgewright_pipelines.sweep_tracking import Tracked

QUICK_TRIALS = 6


def sweep(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a TOML file; its sweep table says what is searched.")],
    quick: Annotated[bool, typer.Option("--quick", help=f"The quick table, and {QUICK_TRIALS} trials.")] = False,
    trials: Annotated[int | None, typer.Option(min=1, help="Finished trials, earlier runs' included.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; else one for each core.")] = None,
    dask: Annotated[str | None, typer.Option(help="A Dask scheduler, such as tcp://host:8786, instead.")] = None,
    data: data_command.DataOption = None,
    workspace: Annotated[Path, typer.Option(help="Where the study and finished stages are kept.")] = WORKSPACE,
    mlflow: Annotated[str | None, typer.Option(help="URL of an MLflow server: each trial becomes a run.")] = None,
    keys: Annotated[Path | None, typer.Option(help="Folder of `edgewright keys new`: publish the release too.")] = None,
    alias: Annotated[str | None, typer.Option(help="Alias to move to the published version.")] = None,
    json_output: JsonFlag = False,
) -> None:
    """Search for variants that none beats in macro-F1 (validation), bytes and p50; then measure and release them.

    Ctrl-C keeps every finished trial, and the same command goes on where it stopped. Workers of a Dask cluster must
    see the same data and workspace, and run one thread each.

    Examples:
      edgewright sweep pipelines/recipes/identify.toml --trials 40
      edgewright sweep pipelines/recipes/identify.toml --dask tcp://127.0.0.1:8786 --mlflow http://127.0.0.1:5000
    """
    from edgewright_pipelines import flow, stages
    from edgewright_pipelines import recipe as recipes
    from edgewright_pipelines import sweep as search

    began = time.monotonic()
    with sentences(search.SweepError, *expected.of_training(remote=mlflow is not None)):
        loaded = recipes.load(recipe, quick=quick)
        wanted = trials or (QUICK_TRIALS if quick else loaded.sweep.trials)
        loaded = loaded.model_copy(update={"sweep": loaded.sweep.model_copy(update={"trials": wanted})})
        source = source_of(data, workspace)
        with StageProgress() as report:
            line = flow.opened(loaded, source, stages.Stages(workspace / "stages"), report)
            base = line.base()
            study = search.opened(loaded, line.data_digest, workspace)
            plan = search.Plan(loaded, data_command.located(data), workspace)
            _search(study, plan, dask, workers, mlflow, report)
            result = line.result(search.files(study, line.compressor(), base))
        summary = variants.released(result, workspace, mlflow=mlflow, keys=keys, alias=alias)
    summary["trials"] = len(search.done(study))
    summary["front"] = [choice.name for choice in search.front(study)]
    summary["seconds"] = round(time.monotonic() - began, 1)
    if json_output:
        print_json(summary)
        return
    variants.tell(summary)


def _search(study: Any, plan: Any, dask: str | None, workers: int | None, mlflow: str | None, report: Any) -> None:
    from edgewright_pipelines import sweep as search
    from edgewright_pipelines.workers import DaskWorkers, ProcessWorkers

    if len(search.done(study)) >= plan.recipe.sweep.trials:
        return
    tracked = _tracked(study, mlflow, plan.recipe.name)
    where = DaskWorkers(dask) if dask else ProcessWorkers(workers or os.cpu_count() or 1)
    status = "FAILED"
    try:
        search.search(study, plan, where, report=report, finished=_noting(tracked))
        status = "FINISHED"
    except search.Stopped:
        status = "KILLED"
        kept = len(search.done(study))
        err.print(f"stopped; {kept} finished trials are kept, and the same command goes on from there")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        if tracked:
            tracked.ended(status)


def _noting(tracked: "Tracked | None") -> Callable[[Any], None]:
    """MLflow that is away for a moment costs a trial its run there, not the search."""
    if tracked is None:
        return lambda _: None
    from mlflow.exceptions import MlflowException

    def note(trial: Any) -> None:
        try:
            tracked.finished(trial)
        except MlflowException as error:
            err.print(f"MLflow did not take trial {trial.number}: {error}")

    return note


def _tracked(study: Any, url: str | None, name: str) -> "Tracked | None":
    if url is None:
        return None
    from edgewright_pipelines import registry, sweep_tracking

    return sweep_tracking.opened(registry.connect(url), study, name)
