"""`edgewright evaluate`: score any release on any Tracebase folder."""

from pathlib import Path
from typing import Annotated

import typer

from edgewright_cli import data as data_command
from edgewright_cli.output import JsonFlag, out, print_json, sentences


def evaluate(
    release: Annotated[Path, typer.Argument(help="Folder of a release.")],
    data: data_command.DataOption = None,
    variant: Annotated[str | None, typer.Option(help="Which variant; else the first.")] = None,
    json_output: JsonFlag = False,
) -> None:
    """Score a release on traces: macro-F1 for each window and each day, accuracy, cross-entropy, F1 of each class.

    Example: edgewright evaluate .edgewright/release --data data/tracebase --variant base-int8 --json
    """
    from edgewright_pipelines import scoring
    from edgewright_pipelines.data import location, traces

    with sentences(scoring.ScoringError, traces.DataError, location.LocationError):
        directory = data_command.located(data)
        if directory is None:
            raise traces.DataError("no traces: set TRACEBASE_DIR, pass --data, or run `edgewright data fetch` first")
        found, _ = traces.read(directory, cache=Path(".edgewright/traces"))
        scored = scoring.score_release(release, found, variant)
    result = scored.as_json()
    if json_output:
        print_json(result)
        return
    for key in ("variant", "macroF1", "dayMacroF1", "accuracy", "bce", "windows", "days"):
        value = result[key]
        out.print(f"{key:12} {value:.4f}" if isinstance(value, float) else f"{key:12} {value}")
