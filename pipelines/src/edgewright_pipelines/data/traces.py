"""First stage, `traces.read → windows.cut`: a folder of files becomes day traces and a report of what was wrong."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from edgewright_pipelines.data import cache as caching
from edgewright_pipelines.data.duplicates import Verdict, judge
from edgewright_pipelines.data.names import ENDINGS, NameProblem, Place, Subset, place_of
from edgewright_pipelines.data.parse import Day, FileProblem, decompress, parse
from edgewright_pipelines.data.report import DataReport, Progress, Reporter, silent

WORKERS = 2


class DataError(ValueError):
    """A folder that cannot be read as traces at all; the text says what to change."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One device, one day. watts: uint16 [86400], one value a second from midnight; 0 where nothing is known.

    name: the file below the data folder without its ending, unique; device: `class/plug`; date: yyyy-mm-dd;
    gap_seconds: seconds of the day that no reading covers, neither directly nor by holding the last value.
    """

    name: str
    appliance: str
    device: str
    subset: str
    date: str
    watts: npt.NDArray[np.uint16]
    gap_seconds: int


def read(directory: Path, cache: Path | None = None, report: Reporter = silent) -> tuple[list[Trace], DataReport]:
    """All traces below `directory`, sorted by name, without proven duplicates; `report` is told how far it is.

    A file that is no day trace is skipped and named in the report. With `cache`, a folder, parsed days are kept there.
    Raises DataError when there is no folder or no trace file in it.
    """
    files = _files(directory)
    key = _key(directory, files) if cache else None
    if cache and key and (stored := caching.load(cache, key, Trace)):
        return stored[0], replace(stored[1], source=directory.name)
    traces, found = _read_all(directory, files, report)
    if cache and key:
        try:
            caching.save(cache, key, traces, found)
        except OSError as error:
            note = f"The parsed traces could not be kept in {cache} ({error.strerror}); the next run parses them again."
            found = replace(found, notes=(*found.notes, note))
    return traces, found


def _key(directory: Path, files: Sequence[Path]) -> str | None:
    try:
        return caching.key_of(directory, files)
    except OSError:  # an unreadable file is named when it is parsed
        return None


def _files(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise DataError(f"There is no folder {directory}; run `edgewright data fetch {directory}`, or name another.")
    found = (Path(folder) / name for folder, _, names in os.walk(directory) for name in names)
    files = sorted(file for file in found if file.name.endswith(ENDINGS) and not file.name.startswith("."))
    if not files:
        raise DataError(
            f"{directory} holds no {' or '.join(ENDINGS)} files; run `edgewright data fetch`, or set TRACEBASE_DIR."
        )
    return files


Outcome = tuple[Place, Day] | str


def _read_all(directory: Path, files: Sequence[Path], report: Reporter) -> tuple[list[Trace], DataReport]:
    names = [file.relative_to(directory).as_posix() for file in files]
    outcomes: dict[str, Outcome] = {}
    with ThreadPoolExecutor(WORKERS) as pool:  # threads suffice: zstd, polars and numpy release the lock
        for name, outcome in zip(names, pool.map(_read_one, files, names), strict=True):
            outcomes[name] = outcome
            report(Progress("read traces", len(outcomes), len(files)))
    return _conclude(directory.name, _without_twice(outcomes))


def _read_one(file: Path, name: str) -> Outcome:
    """Place and day of one file, or the second half of a sentence that says why not."""
    try:
        place = place_of(PurePosixPath(name))
        data = file.read_bytes()
        return place, parse(decompress(data) if name.endswith(".zst") else data)
    except (FileProblem, NameProblem) as problem:
        return str(problem)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def _without_twice(outcomes: dict[str, Outcome]) -> dict[str, Outcome]:
    """Skip `x.csv.zst` where `x.csv` stands too: names of traces are unique."""
    taken: set[str] = set()
    kept = dict(outcomes)
    for name, outcome in outcomes.items():
        if isinstance(outcome, str):
            continue
        if outcome[0].name in taken:
            kept[name] = f"stands beside {outcome[0].name}.csv, the same trace uncompressed; remove one of them"
        taken.add(outcome[0].name)
    return kept


def _conclude(source: str, outcomes: dict[str, Outcome]) -> tuple[list[Trace], DataReport]:
    good = [outcome for outcome in outcomes.values() if not isinstance(outcome, str)]
    traces = sorted((_trace(place, day) for place, day in good), key=lambda trace: trace.name)
    verdict = judge(traces)
    kept = [trace for trace in traces if trace.name not in verdict.dropped]
    skipped = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, str)}
    return kept, _report(source, [day for _, day in good], skipped, kept, verdict)


def _trace(place: Place, day: Day) -> Trace:
    return Trace(
        name=place.name,
        appliance=place.appliance,
        device=place.device,
        subset=place.subset.value,
        date=day.date,
        watts=day.watts,
        gap_seconds=day.gap_seconds,
    )


def _report(
    source: str, days: Sequence[Day], skipped: dict[str, str], kept: Iterable[Trace], verdict: Verdict
) -> DataReport:
    per_class = Counter(trace.appliance for trace in kept)
    devices = Counter(device.split("/")[0] for device in {trace.device for trace in kept})
    return DataReport(
        source=source,
        files=len(days) + len(skipped),
        read=len(days),
        rows=sum(day.rows for day in days),
        gap_seconds=sum(day.gap_seconds for day in days),
        held_seconds=sum(day.held_seconds for day in days),
        unsorted_rows=sum(day.unsorted_rows for day in days),
        repeated_rows=sum(day.repeated_rows for day in days),
        foreign_rows=sum(day.foreign_rows for day in days),
        files_unsorted=sum(day.unsorted_rows > 0 for day in days),
        files_repeated=sum(day.repeated_rows > 0 for day in days),
        skipped=skipped,
        dropped=verdict.dropped,
        suspected=verdict.suspected,
        days=dict(sorted(per_class.items())),
        devices=dict(sorted(devices.items())),
    )


def of_subsets(traces: Iterable[Trace], subsets: Sequence[str]) -> list[Trace]:
    """The traces of a recipe's `[data] subsets`; generated ones belong to none of them and stay."""
    return [trace for trace in traces if trace.subset in subsets or trace.subset not in set(Subset)]
