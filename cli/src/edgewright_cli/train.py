"""`edgewright train`: from a recipe to measured variants, and to a signed release in MLflow when asked."""

import logging
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from edgewright_cli import data as data_command
from edgewright_cli.output import JsonFlag, err, out, print_json, sentences
from edgewright_cli.progress import StageProgress

if TYPE_CHECKING:
    from edgewright_pipelines.data.source import Source
    from edgewright_pipelines.flow import Result

WORKSPACE = Path(".edgewright")


def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a TOML file.")],
    quick: Annotated[bool, typer.Option("--quick", help="Lay the recipe's [quick] table over it: minutes.")] = False,
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
    from edgewright_pipelines import flow, prune, publish, quantize, release, signing_keys, splits, stages, windows
    from edgewright_pipelines import handover as handing
    from edgewright_pipelines import recipe as recipes
    from edgewright_pipelines import train as training
    from edgewright_pipelines.data import location, traces

    expected = (
        recipes.RecipeError,
        traces.DataError,
        location.LocationError,
        splits.SplitError,
        windows.WindowError,
        training.TrainingError,
        prune.PruningError,
        quantize.QuantizationError,
        release.ReleaseError,
        publish.PublishError,
        handing.HandoverError,
        signing_keys.KeysError,
        OSError,
    )
    started = time.monotonic()
    with sentences(*expected):
        if mlflow and not keys:
            raise signing_keys.KeysError("--mlflow needs --keys: make them with `edgewright keys new keys`")
        loaded = recipes.load(recipe, quick=quick)
        source = _source(data, workspace)
        with StageProgress() as report:
            result = flow.run(loaded, source, stages.Stages(workspace / "stages"), report)
        summary: dict[str, Any] = {"variants": [_row(built, result) for built in result.variants]}
        chosen = only.split(",") if only else None
        if mlflow and keys:
            summary["published"] = _publish(result, mlflow, keys, alias, chosen, workspace)
            summary["release"] = summary["published"].pop("folder")
        else:
            summary["release"] = str(_keep(result, chosen, workspace))
    summary["seconds"] = round(time.monotonic() - started, 1)
    summary["synthetic"] = result.synthetic
    if json_output:
        print_json(summary)
        return
    out.print(_table(summary["variants"]))
    for row in summary["variants"]:
        if not row["released"]:
            out.print(f"{row['name']} is not released: {' '.join(row['reasons'])}")
    if "published" in summary:
        out.print(f"published version {summary['published']['version']} ({summary['published']['manifest']})")
    out.print(f"release in {summary['release']}; `edgewright evaluate latest` scores it")


def _source(data: Path | None, workspace: Path) -> "Source":
    from edgewright_pipelines.data import source, synthetic

    found, report = source.obtain(data_command.located(data), workspace)
    if found.synthetic:
        err.print(f"[bold yellow]{synthetic.BANNER}")
    if report is not None and report.skipped:
        err.print(f"{len(report.skipped)} files were skipped; `edgewright data report` names them")
    return found


def _row(built: Any, result: "Result") -> dict[str, Any]:
    measured = built.measured
    return {
        "name": built.name,
        "bytes": measured.bytes,
        "parameters": measured.parameters,
        "macs": measured.macs,
        "p50Microseconds": round(measured.latency.p50, 1),
        "p95Microseconds": round(measured.latency.p95, 1),
        # a score on made-up data means nothing, so none is told
        "macroF1": None if result.synthetic else round(measured.scores.macro_f1, 4),
        "dayMacroF1": None if result.synthetic else round(measured.scores.macro_f1_by_day, 4),
        "bce": None if result.synthetic else round(measured.scores.bce, 4),
        "cpuMicroseconds": None if measured.latency.cpu is None else round(measured.latency.cpu, 1),
        "joules": measured.latency.joules,
        "released": built.verdict.passed,
        "reasons": list(built.verdict.reasons),
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("VARIANT", "BYTES", "P50 us", "F1 window", "F1 day", "BCE", "RELEASED", box=None)
    for row in rows:
        scores = [f"{row[key]:.3f}" if row[key] is not None else "-" for key in ("macroF1", "dayMacroF1", "bce")]
        table.add_row(row["name"], f"{row['bytes']:,}", f"{row['p50Microseconds']:.0f}", *scores, _released(row))
    return table


def _released(row: dict[str, Any]) -> str:
    return "yes" if row["released"] else "no"


def _keep(result: "Result", only: list[str] | None, workspace: Path) -> Path:
    """The release as a folder, without a signature: to look at and to score, not to roll out."""
    from edgewright_pipelines import handover, release_folder, resolve

    now = datetime.now(UTC)
    unsigned = handover.unsigned(result, created=now, only=only)
    folder = workspace / resolve.RELEASES / unsigned.registered_model / "unpublished"
    return release_folder.write_unsigned(folder, unsigned.numbered(version=1, sequence=int(now.timestamp())))


def _publish(
    result: "Result", url: str, keys: Path, alias: str | None, only: list[str] | None, workspace: Path
) -> dict[str, Any]:
    # the client retries for minutes by default, and a person waits here
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    from edgewright_pipelines import handover, publish, resolve, signing_keys, tracking

    client = MlflowClient(tracking_uri=url)
    key = signing_keys.load(keys).private(signing_keys.Role.RELEASE)
    run_id = tracking.log(client, result)
    unsigned = handover.unsigned(result, created=datetime.now(UTC), only=only, run_id=run_id)
    done = publish.to_mlflow(unsigned, key, client, alias=alias, now=time.time(), run_id=run_id)
    folder = resolve.fetch(client, unsigned.registered_model, str(done.version), keys, workspace)
    return {
        "version": done.version,
        "sequence": done.sequence,
        "manifest": done.manifest,
        "run": run_id,
        "folder": str(folder),
    }
