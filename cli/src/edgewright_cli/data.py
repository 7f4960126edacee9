"""`edgewright data`: fetch the traces, and say what is in them."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewright_cli.output import INTERRUPTED, JsonFlag, err, out, print_json, sentences
from edgewright_cli.progress import StageProgress

if TYPE_CHECKING:
    from edgewright_pipelines.data.fetch import Fetched
    from edgewright_pipelines.data.report import DataReport, Progress
    from edgewright_pipelines.data.traces import Trace

HELP = """Fetch the traces, and say what is in them.

Examples:
  edgewright data fetch
  edgewright data report
"""
app = typer.Typer(no_args_is_help=True, help=HELP)

WORKSPACE = Path(".edgewright")
"""Where finished stages, parsed traces and releases are kept and found again."""

QUICK_FILES = 300
"""Traces that `--quick` reads, whatever the folder's size: they are read and scored within a minute."""
QUICK_SECONDS = 45.0
"""After so long `data fetch --quick` begins no further piece."""

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


@contextmanager
def sampled(directory: Path, most: int) -> Iterator[tuple[Path, int]]:
    """A folder of links to at most `most` trace files spread evenly over `directory`, and how many files it leaves out.

    A folder with no more files than that is given back itself.
    """
    from edgewright_pipelines.data.names import ENDINGS

    name = directory.resolve().name
    files = sorted(file for file in directory.rglob("*") if file.name.endswith(ENDINGS) and file.name[0] != ".")
    if len(files) <= most:
        yield directory, 0
        return
    with tempfile.TemporaryDirectory(prefix="edgewright-sample-") as folder:
        for index in range(most):
            file = files[index * len(files) // most]
            link = Path(folder) / name / file.relative_to(directory)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.absolute())
        yield Path(folder) / name, len(files) - most


def read(
    directory: Path, workspace: Path, *, quick: bool, bar: StageProgress
) -> tuple[list["Trace"], "DataReport", list[str]]:
    """Traces, their report, and in sentences what `--quick` left out.

    Raises:
        DataError: there is no folder or no trace in it.
    """
    from edgewright_pipelines.data import traces

    if not quick:
        return *traces.read(directory, cache=workspace / "traces", report=bar.steps), []
    with sampled(directory, QUICK_FILES) as (part, missing):
        found, counted = traces.read(part, report=bar.steps)
    if not missing:
        return found, counted, []
    told = f"{missing:,} trace files; {QUICK_FILES} spread evenly over the folder were read"
    err.print(f"Left out by --quick: {told}.")
    return found, counted, [told]


@app.command("report")
def report(
    data: DataOption = None,
    quick: Annotated[bool, typer.Option("--quick", help=f"Read {QUICK_FILES} files only: seconds.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Read every trace and report what was mended, skipped and dropped.

    Examples:
      edgewright data report --data data/tracebase
      edgewright data report --quick --json
    """
    import json

    from edgewright_pipelines.data import location, traces

    with sentences(traces.DataError, location.LocationError, OSError), StageProgress() as bar:
        _, found, missing = read(needed(data), WORKSPACE, quick=quick, bar=bar)
    if json_output:
        print_json(json.loads(found.to_json()) | {"leftOut": missing})
    else:
        out.print(found.to_markdown())


@app.command("fetch")
def fetch(
    destination: Annotated[Path, typer.Argument(help="Where the traces go.")] = Path("data/tracebase"),
    url: Annotated[
        str | None, typer.Option(envvar="EDGEWRIGHT_DATA_URL", help="Archive to fetch instead of the public one.")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help=f"Stop after {QUICK_SECONDS:.0f} s and keep what came: the next run goes on."),
    ] = False,
    json_output: JsonFlag = False,
) -> None:
    """Download the public Tracebase repository with pinned checksums; a broken download is resumed.

    Examples:
      edgewright data fetch
      edgewright data fetch /mnt/traces --url https://mirror.example/tracebase.tar.gz
    """
    from edgewright_pipelines.data import download, manifest

    told = {"destination": str(destination), "finished": False, "kept": 0, "added": 0, "leftOut": []}
    try:
        with sentences(download.FetchError, manifest.ManifestError, OSError), StageProgress() as bar:
            deadline = Deadline(time.monotonic() + QUICK_SECONDS if quick else None, bar)
            found = _fetched(url, destination, deadline, 5.0 if quick else 30.0)
        told |= {"finished": True, "kept": found.kept, "added": found.added}
        said = f"Tracebase is in {destination}: {found.added} files came now, {found.kept} were there."
    except TimeUpError:
        said = "the rest of the archive; run the command again, and it goes on from there"
        told["leftOut"] = [said]
        said = f"Left out by --quick: {said}."
    except KeyboardInterrupt:
        err.print("Stopped. What came is kept; run the command again, and it goes on from there.")
        raise typer.Exit(INTERRUPTED) from None
    if json_output:
        print_json(told)
    else:
        out.print(said)


class TimeUpError(Exception):
    """The time of `--quick` is over; what came is kept."""


class Deadline:
    """Tells the progress on, and ends the work between two of its pieces once the time is over."""

    def __init__(self, end: float | None, bar: StageProgress) -> None:
        self._end = end
        self._bar = bar

    def report(self, progress: "Progress") -> None:
        """Raises TimeUpError when no further piece may begin."""
        self.pause(0)
        self._bar.steps(progress)

    def pause(self, seconds: float) -> None:
        """Wait before another try; raises TimeUpError when the time would be over then."""
        if self._end is not None and time.monotonic() + seconds > self._end:
            raise TimeUpError
        time.sleep(seconds)


def _fetched(url: str | None, destination: Path, deadline: Deadline, timeout: float) -> "Fetched":
    import httpx2

    from edgewright_pipelines.data import fetch as fetching
    from edgewright_pipelines.data import manifest

    with httpx2.Client(timeout=timeout) as client:
        wanted = manifest.packaged()
        address = url or fetching.ARCHIVE_URL
        return fetching.fetch(address, destination, wanted, client, deadline.report, deadline.pause)
