"""What the kernel says of a process: processor time, time spent waiting for a processor, memory. Reads /proc only."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """Counters of one process since it began."""

    cpu_seconds: float
    """All threads."""
    waited_seconds: float
    """The main thread ready to run, and no processor free for it."""


def usage(pid: int) -> Usage | None:
    """The counters now; none where the process has ended."""
    folder = Path("/proc") / str(pid)
    try:
        fields = (folder / "stat").read_text().rpartition(") ")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        schedule = (folder / "schedstat").read_text().split() if (folder / "schedstat").exists() else []
    except (OSError, IndexError, ValueError):
        return None
    waited = int(schedule[1]) / 1e9 if len(schedule) > 1 else 0.0
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), waited)
