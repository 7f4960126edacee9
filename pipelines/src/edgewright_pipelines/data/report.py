"""Beside traces.read: what was found in the data, counted, as a frozen value with JSON and Markdown forms."""

import json
from collections.abc import Callable, Mapping
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
    """Counts of one reading. Seconds unless said otherwise; `skipped`, `dropped` and `suspected`: file -> sentence."""

    source: str
    files: int = 0
    read: int = 0
    gap_seconds: int = 0
    held_seconds: int = 0
    unsorted_rows: int = 0
    repeated_rows: int = 0
    foreign_rows: int = 0
    clipped_rows: int = 0
    padded_files: int = 0
    skipped: Mapping[str, str] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)
    suspected: Mapping[str, str] = field(default_factory=dict)
    days: Mapping[str, int] = field(default_factory=dict)
    devices: Mapping[str, int] = field(default_factory=dict)

    @property
    def traces(self) -> int:
        """Traces that are left: read, less the duplicates."""
        return self.read - len(self.dropped)

    def to_json(self) -> str:
        """All counts, keys sorted, so that two reports of the same data are the same text."""
        return json.dumps(asdict(self) | {"traces": self.traces}, indent=2, sort_keys=True)
