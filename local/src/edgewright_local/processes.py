"""Starts server processes and ends exactly these, also when whoever started them was killed.

Every server of this package is a `ManagedProcess`: own session, own log file, and a record in `<directory>/run/`
from which `stop_all` can end it later. Records are read by `process_records`.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edgewright_local.errors import ProcessError
from edgewright_local.process_records import MARK_VARIABLE, ProcessRecord, living_family, read_record

STOP_GRACE_SECONDS = 15.0
LOG_TAIL_LINES = 20
_POLL_SECONDS = 0.05

# The shell records itself and then becomes the server (same pid, same start time), so there is no moment at which
# the server runs without a record. `set -e`: a record that cannot be written means that nothing is started.
_RECORD_THEN_EXEC = """set -eu
record=$1; shift
read -r stat < "/proc/$$/stat"
read -r boot < /proc/sys/kernel/random/boot_id
umask_before=$(umask); umask 077
printf '%s\\n%s\\n%s\\n' "$stat" "$boot" "$EDGEWRIGHT_PROCESS_MARK" > "$record.new"
mv -f "$record.new" "$record"
umask "$umask_before"
exec "$@"
"""


@dataclass(frozen=True)
class ProcessSpec:
    """What to run: `directory` holds the log (`<name>.log`) and the record (`run/<name>.pid`)."""

    name: str
    command: Sequence[str]
    directory: Path
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    working_directory: Path | None = None
    stop_grace_seconds: float = STOP_GRACE_SECONDS

    @property
    def log(self) -> Path:
        """Standard output and error of the process, appended over restarts."""
        return self.directory / f"{self.name}.log"

    @property
    def record(self) -> Path:
        """Pid, start time, boot and mark of the process; there from before it runs until it was stopped."""
        return self.directory / "run" / f"{self.name}.pid"


@dataclass(frozen=True)
class ManagedProcess:
    """A running process and what it was started from."""

    spec: ProcessSpec
    _child: subprocess.Popen[bytes]
    _mark: str

    @classmethod
    def start(cls, spec: ProcessSpec) -> ManagedProcess:
        """Start `spec` in a session of its own.

        Raises:
            ProcessError: the program is missing, or one of that name still runs from the same directory.
        """
        _refuse_second(spec)
        spec.record.parent.mkdir(parents=True, exist_ok=True)
        mark = secrets.token_hex(16)
        with spec.log.open("ab") as log:
            child = subprocess.Popen(
                ["/bin/sh", "-c", _RECORD_THEN_EXEC, spec.name, str(spec.record), *map(str, spec.command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**spec.environment, MARK_VARIABLE: mark},
                cwd=spec.working_directory,
                start_new_session=True,
            )
        return cls(spec, child, mark)

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its session and process group."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the process itself (not only a child that it left) is alive."""
        return self._child.poll() is None

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines of the log, for error texts."""
        return log_tail(self.spec.log, lines)

    def wait_until_ready(self, probe: Callable[[], bool], seconds: float) -> float:
        """Ask `probe` until it says yes; give back the seconds that this took.

        Raises:
            ProcessError: the process ended, or `seconds` passed; its log is quoted.

        Whatever is raised (an interrupt too), the process has been stopped before.
        """
        began = time.monotonic()
        try:
            while self.running:
                if probe():
                    return time.monotonic() - began
                if time.monotonic() - began > seconds:
                    raise ProcessError(self._complaint(f"was not ready after {seconds:.0f} s and is stopped"))
                time.sleep(_POLL_SECONDS)
            raise ProcessError(self._complaint(f"ended with code {self._child.returncode} before it was ready"))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the process and all that it started: SIGTERM, after the grace SIGKILL. Stopping twice is fine.

        Raises:
            ProcessError: something survived SIGKILL.
        """
        record = read_record(self.spec.record)
        if record is not None and record.mark == self._mark:
            _end_family(record, self.spec.stop_grace_seconds)
            self.spec.record.unlink(missing_ok=True)
        elif self.running:  # the shell had no time to write its record
            os.killpg(self.pid, signal.SIGKILL)
        self._child.wait()

    def _complaint(self, what: str) -> str:
        return f"{self.spec.name} {what}. Its log, {self.spec.log}, ends with:\n{self.log_tail()}"


def stop_all(state_directory: Path, grace_seconds: float = STOP_GRACE_SECONDS) -> list[str]:
    """End every process recorded anywhere under `state_directory`, newest first; give back the names of the ended.

    Works from any process, also after the starter was killed. A record whose pid belongs to somebody else by now is
    only removed.

    Raises:
        ProcessError: something survived SIGKILL (its record stays).
    """
    found = [(path, read_record(path)) for path in state_directory.rglob("run/*.pid")]
    ended: list[str] = []
    for path, record in sorted(found, key=lambda pair: pair[1].started_ticks if pair[1] else 0, reverse=True):
        if record is not None and living_family(record):
            _end_family(record, grace_seconds)
            ended.append(path.stem)
        path.unlink(missing_ok=True)
    return ended


def still_running(state_directory: Path) -> list[str]:
    """Names of the recorded processes under `state_directory` of which something is alive."""
    records = {path: read_record(path) for path in state_directory.rglob("run/*.pid")}
    return sorted(path.stem for path, record in records.items() if record is not None and living_family(record))


def log_tail(log: Path, lines: int = LOG_TAIL_LINES) -> str:
    """The last `lines` lines of `log`; a sentence when there is none."""
    if not log.exists() or log.stat().st_size == 0:
        return "(the log is empty)"
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 64 * 1024))
        text = stream.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:])


def _refuse_second(spec: ProcessSpec) -> None:
    record = read_record(spec.record)
    if record is not None and living_family(record):
        raise ProcessError(
            f"{spec.name} already runs from {spec.directory} (pid {record.pid}). Stop it, or choose another folder."
        )


def _end_family(record: ProcessRecord, grace_seconds: float) -> None:
    for sign, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 5.0)):
        until = time.monotonic() + seconds
        signaled: set[int] = set()
        while family := living_family(record):
            # Those that appear meanwhile (a supervisor that restarts its worker) get the signal as well.
            for pid in family - signaled:
                _send(pid, sign)
            signaled |= family
            if time.monotonic() > until:
                break
            time.sleep(_POLL_SECONDS)
        else:
            return
    if family := living_family(record):
        raise ProcessError(f"process {record.pid} and its children {sorted(family)} are still there after SIGKILL")


def _send(pid: int, sign: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it ended between the look and the signal
        os.kill(pid, sign)
