"""`edgewright data`: fetch the traces, and say what is in them."""

import os
from pathlib import Path
from typing import Annotated

import typer

from edgewright_cli.output import JsonFlag, out, print_json, sentences
from edgewright_cli.progress import StageProgress

app = typer.Typer(no_args_is_help=True, help="Fetch the traces, and say what is in them.")

WORKSPACE = Path(".edgewright")
"""Where finished stages, parsed traces and releases are kept and found again."""

DataOption = Annotated[
    Path | None, typer.Option("--data", help="Tracebase folder; else TRACEBASE_DIR, else data/tracebase.")
]


def located(data: Path | None) -> Path | None:
    """The folder to read: the option, TRACEBASE_DIR, data/tracebase, or none."""
    from edgewright_pipelines.data import location

    return data if data is not None else location.locate(os.environ, Path.cwd())


def needed(data: Path | None) -> Path:
    """As `located`, for commands that have no use for made-up traces.

    Raises:
        DataError: there are none.
    """
    from edgewright_pipelines.data import traces

    if (directory := located(data)) is None:
        raise traces.DataError("no traces: set TRACEBASE_DIR, pass --data, or run `edgewright data fetch` first")
    return directory


@app.command("report")
def report(data: DataOption = None, json_output: JsonFlag = False) -> None:
    """Read every trace and report what was mended, skipped and dropped.

    Example: edgewright data report --data data/tracebase
    """
    from edgewright_pipelines.data import location, traces

    with sentences(traces.DataError, location.LocationError):
        directory = needed(data)
        _, found = traces.read(directory, cache=WORKSPACE / "traces")
    if json_output:
        import json

        print_json(json.loads(found.to_json()))
    else:
        out.print(found.to_markdown(), markup=False)


@app.command("fetch")
def fetch(
    destination: Annotated[Path, typer.Argument(help="Where the traces go.")] = Path("data/tracebase"),
    url: Annotated[str | None, typer.Option(help="Archive to fetch instead of the public one.")] = None,
    json_output: JsonFlag = False,
) -> None:
    """Download the public Tracebase repository with pinned checksums; a broken download is resumed.

    Examples:
      edgewright data fetch
      edgewright data fetch /mnt/traces --url https://mirror.example/tracebase.tar.gz
    """
    import httpx2

    from edgewright_pipelines.data import download, manifest
    from edgewright_pipelines.data import fetch as fetching

    with (
        sentences(download.FetchError, manifest.ManifestError, OSError),
        httpx2.Client(timeout=30) as client,
        StageProgress() as bar,
    ):
        found = fetching.fetch(
            url or fetching.ARCHIVE_URL,
            destination,
            manifest.packaged(),
            client,
            lambda step: bar(step.step, step.done / step.total if step.total else 0.0),
        )
    if json_output:
        print_json({"destination": str(destination), "kept": found.kept, "added": found.added})
    else:
        out.print(f"Tracebase is in {destination}: {found.added} files came now, {found.kept} were there.")
