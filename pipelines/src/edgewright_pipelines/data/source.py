"""Where a run's traces come from: a folder, or made-up ones. Training and held-out windows must agree on it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewright_pipelines.data import synthetic, traces
from edgewright_pipelines.data.report import DataReport
from edgewright_pipelines.data.traces import Trace


@dataclass(frozen=True, slots=True)
class Source:
    """Traces to learn from, and whether they are made up."""

    traces: Sequence[Trace]
    synthetic: bool

    def digest(self) -> str:
        """`sha256:…` of names, devices and watts: what the result depends on."""
        total = hashlib.sha256()
        for trace in self.traces:
            total.update(f"{trace.name}/{trace.appliance}/{trace.device}\n".encode())
            total.update(trace.watts.tobytes())
        return f"sha256:{total.hexdigest()}"


def obtain(directory: Path | None, workspace: Path) -> tuple[Source, DataReport | None]:
    """The traces of a folder, their parsed form kept in `workspace`, and the report; generated ones for None.

    Raises:
        DataError: the folder holds no traces.
    """
    if directory is None:
        return Source(synthetic.generate(seed=1, devices=3, days=8), synthetic=True), None
    found, report = traces.read(directory, cache=workspace / "traces")
    return Source(found, synthetic=False), report
