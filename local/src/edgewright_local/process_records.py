"""Tells from `/proc` which living processes belong to a recorded one, so that a recycled pid is never taken for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MARK_VARIABLE = "EDGEWRIGHT_PROCESS_MARK"
_PROC = Path("/proc")
_BOOT_ID = _PROC / "sys/kernel/random/boot_id"


@dataclass(frozen=True)
class ProcessRecord:
    """A started process: pid and start time (clock ticks since boot) name it within one boot.

    `mark` is a random word in its environment, inherited by its children, which finds these when the process itself
    has already ended.
    """

    pid: int
    started_ticks: int
    boot: str
    mark: str


@dataclass(frozen=True)
class _Stat:
    pid: int
    state: str
    session: int
    started_ticks: int


def read_record(path: Path) -> ProcessRecord | None:
    """The record in `path`; None when there is none or it is not one."""
    try:
        stat_line, boot, mark = path.read_text().splitlines()
        stat = _parse_stat(stat_line)
    except (OSError, ValueError, IndexError):
        return None
    return ProcessRecord(stat.pid, stat.started_ticks, boot, mark)


def living_family(record: ProcessRecord) -> set[int]:
    """Pids of the recorded process, of its session and of every heir of its mark that are alive (zombies are not)."""
    if _BOOT_ID.read_text().strip() != record.boot:
        return set()
    alive = {stat.pid: stat for stat in map(_read_stat, _numbers()) if stat is not None and stat.state not in "ZX"}
    leader = alive.get(record.pid)
    leads = leader is not None and leader.started_ticks == record.started_ticks
    return {
        stat.pid
        for stat in alive.values()
        if (leads and stat.session == record.pid)
        or (stat.started_ticks >= record.started_ticks and _has_mark(stat.pid, record.mark))
    }


def start_ticks(pid: int) -> int | None:
    """Start time of a living process in clock ticks since boot; None when there is no such process."""
    stat = _read_stat(pid)
    return None if stat is None or stat.state in "ZX" else stat.started_ticks


def _numbers() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _read_stat(pid: int) -> _Stat | None:
    try:
        return _parse_stat((_PROC / str(pid) / "stat").read_text(errors="replace"))
    except (OSError, ValueError, IndexError):
        return None  # it ended while we looked


def _parse_stat(line: str) -> _Stat:
    """Fields of proc_pid_stat(5); the second, the command name, may itself hold spaces and parentheses."""
    head, _, tail = line.rpartition(")")
    fields = tail.split()
    return _Stat(pid=int(head.split()[0]), state=fields[0], session=int(fields[3]), started_ticks=int(fields[19]))


def _has_mark(pid: int, mark: str) -> bool:
    try:
        entries = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False  # another user's, or gone
    return f"{MARK_VARIABLE}={mark}".encode() in entries
