"""`edgewright evaluate`: score any release on any Tracebase folder."""

from pathlib import Path
from typing import Annotated

import typer

from edgewright_cli import data as data_command
from edgewright_cli import expected
from edgewright_cli.data import WORKSPACE
from edgewright_cli.output import JsonFlag, err, out, print_json, print_table, sentences
from edgewright_cli.progress import StageProgress


def evaluate(
    release: Annotated[str, typer.Argument(help="A folder, name/version, name/alias, or latest.")],
    data: data_command.DataOption = None,
    variant: Annotated[str | None, typer.Option(help="Which variant; else the first.")] = None,
    mlflow: Annotated[str | None, typer.Option(help="URL of the MLflow server that has the release.")] = None,
    keys: Annotated[Path | None, typer.Option(help="Folder with root.pub and trust.json, for --mlflow.")] = None,
    workspace: Annotated[Path, typer.Option(help="Where releases of earlier commands are found.")] = WORKSPACE,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"Score {data_command.QUICK_FILES} traces only: seconds.")
    ] = False,
    json_output: JsonFlag = False,
) -> None:
    """Score a release on traces: macro-F1 for each window and each day, accuracy, cross-entropy, F1 of each class.

    Every trace of the folder counts: where a release learned from some of them, its scores on a held-out part are those
    of `edgewright train`.

    Without --mlflow a release is looked for among those that `edgewright train` and `edgewright demo` left here; the
    signature of a folder is not checked: `edgewright release verify` does that.

    Examples:
      edgewright evaluate latest --data data/tracebase
      edgewright evaluate nilm-identify/2 --variant base-int8 --quick --json
      edgewright evaluate nilm-identify/production --mlflow http://127.0.0.1:5000 --keys keys
    """
    from edgewright_pipelines import resolve, scoring

    with sentences(*expected.of_data(), *expected.of_releases(remote=mlflow is not None)):
        folder = resolve.resolve_release(release, mlflow=mlflow, keys=keys, workspace=workspace)
        directory = data_command.needed(data)
        with StageProgress() as bar:
            found, report, missing = data_command.read(directory, workspace, quick=quick, bar=bar)
            bar("scoring", 0.0)
            scored = scoring.score_release(folder, found, variant)
    if report.skipped:
        err.print(f"{len(report.skipped)} files were skipped; `edgewright data report` names them")
    result = {"release": str(folder), **scored.as_json(), "leftOut": missing}
    if json_output:
        print_json(result)
        return
    for key in ("release", "variant", "macroF1", "dayMacroF1", "accuracy", "bce", "windows", "days"):
        value = result[key]
        out.print(f"{key:12} {value:.4f}" if isinstance(value, float) else f"{key:12} {value}")
    weakest_first = sorted(result["perClass"].items(), key=lambda pair: pair[1])
    print_table(("CLASS", "F1"), [(name, f"{value:.3f}") for name, value in weakest_first])
    if result["unknownClasses"]:
        unknown = ", ".join(f"{name} ({days} days)" for name, days in result["unknownClasses"].items())
        out.print(f"not known to the release, counted apart: {unknown}")
