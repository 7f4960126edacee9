"""What a dashboard is made of, as data: `boards` says which there are, `dashboards` turns them into JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Shape(StrEnum):
    """How a panel shows its samples."""

    LINES = "lines"
    STACK = "stack"
    NUMBER = "number"
    TABLE = "table"


@dataclass(frozen=True)
class Panel:
    """One panel. `queries`: PromQL → legend; `unit` as Grafana calls it."""

    title: str
    explains: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    shape: Shape = Shape.LINES


@dataclass(frozen=True)
class Board:
    """One dashboard: rows of panels. `variables`: name → PromQL whose label of that name gives the choices."""

    uid: str
    title: str
    variables: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]

    def panels(self) -> Iterator[Panel]:
        """All panels, in order."""
        for _, panels in self.rows:
            yield from panels
