"""Beside traces.read: what was found in the data, counted, as a frozen value with JSON and Markdown forms."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long step is; `total` is 0 while unknown."""

    step: str
    done: int
    total: int


Reporter = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """The reporter that tells nobody."""


@dataclass(frozen=True, slots=True)
class DataReport:
    """Counts of one reading.

    files: found; read: parsed, duplicates included; gap_seconds: seconds of all days set to 0 because nothing was
    known; held_seconds: seconds that hold an earlier value; rows by what was mended; skipped, dropped (proven
    duplicates) and suspected: file or device -> sentence; days and devices: class -> count, duplicates left out.
    """

    source: str
    files: int = 0
    read: int = 0
    rows: int = 0
    gap_seconds: int = 0
    held_seconds: int = 0
    unsorted_rows: int = 0
    repeated_rows: int = 0
    foreign_rows: int = 0
    files_unsorted: int = 0
    files_repeated: int = 0
    skipped: Mapping[str, str] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)
    suspected: Mapping[str, str] = field(default_factory=dict)
    days: Mapping[str, int] = field(default_factory=dict)
    devices: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def traces(self) -> int:
        """Traces that are left: read, less the duplicates."""
        return self.read - len(self.dropped)

    def to_json(self) -> str:
        """All counts, keys sorted, so that two reports of the same data are the same text."""
        return json.dumps(asdict(self) | {"traces": self.traces}, indent=2, sort_keys=True)

    def to_markdown(self) -> str:
        """The same for people: a table of counts, then every file that was not taken as it is, then the classes."""
        return "\n".join(_markdown(self)) + "\n"


def _markdown(report: DataReport) -> Iterator[str]:
    yield f"# Data report: {report.source}"
    yield from ("", "| what | count |", "| --- | ---: |")
    for what, count in _counts(report):
        yield f"| {what} | {count:,} |"
    for title, sentences in (
        ("Skipped files", report.skipped),
        ("Dropped duplicates", report.dropped),
        ("Suspected label errors (kept)", report.suspected),
    ):
        if sentences:
            yield from ("", f"## {title}", "")
            yield from (f"* `{name}` {sentence}." for name, sentence in sorted(sentences.items()))
    if report.notes:
        yield from ("", "## Notes", "", *(f"* {note}" for note in report.notes))
    if report.days:
        yield from ("", "## Classes", "", "| class | devices | days |", "| --- | ---: | ---: |")
        ranked = sorted(report.days, key=lambda name: (-report.days[name], name))
        yield from (f"| {name} | {report.devices[name]} | {report.days[name]} |" for name in ranked)


def _counts(report: DataReport) -> Iterator[tuple[str, int]]:
    yield "files found", report.files
    yield "files read", report.read
    yield "files skipped", len(report.skipped)
    yield "proven duplicates dropped", len(report.dropped)
    yield "traces (one device, one day)", report.traces
    yield "classes", len(report.days)
    yield "devices", sum(report.devices.values())
    yield "readings", report.rows
    yield "seconds without any value (0 W)", report.gap_seconds
    yield "seconds that hold an earlier value", report.held_seconds
    yield "readings of a repeated second", report.repeated_rows
    yield "files with repeated seconds", report.files_repeated
    yield "readings that run backwards", report.unsorted_rows
    yield "files that run backwards", report.files_unsorted
    yield "readings of another day, left out", report.foreign_rows
