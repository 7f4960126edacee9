from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgewright_local.errors import ProcessError
from edgewright_local.ports import free_ports, listens
from edgewright_local.process_records import MARK_VARIABLE, living_family, read_record, start_ticks
from edgewright_local.processes import ManagedProcess, ProcessSpec, still_running, stop_all

_SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
# A server whose worker ignores SIGTERM and lives in a session of its own.
_STUBBORN = """
import signal, subprocess, sys, time
worker = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('worker', flush=True); time.sleep(600)"
)
subprocess.Popen([sys.executable, "-c", worker], start_new_session=True)
time.sleep(600)
"""


def _wait_for_log(process: ManagedProcess, word: str) -> None:
    process.wait_until_ready(lambda: word in process.log_tail(), 20)


def _started(directory: Path, command: list[str], name: str = "server", grace: float = 5.0) -> ManagedProcess:
    process = ManagedProcess.start(ProcessSpec(name, command, directory, stop_grace_seconds=grace))
    process.wait_until_ready(lambda: read_record(process.spec.record) is not None, 10)
    return process


def test_stop_ends_the_process_and_removes_its_record(tmp_path: Path) -> None:
    process = _started(tmp_path, _SLEEP)
    assert process.running
    assert still_running(tmp_path) == ["server"]
    process.stop()
    process.stop()
    assert not process.running
    assert not process.spec.record.exists()
    assert start_ticks(process.pid) is None


def test_stop_ends_children_that_left_the_session_and_ignore_sigterm(tmp_path: Path) -> None:
    process = _started(tmp_path, [sys.executable, "-c", _STUBBORN], grace=0.5)
    _wait_for_log(process, "worker")
    record = read_record(process.spec.record)
    assert record is not None
    family = living_family(record)
    assert len(family) == 2
    process.stop()
    assert [pid for pid in family if start_ticks(pid) is not None] == []


def test_stop_all_ends_what_a_killed_starter_left(tmp_path: Path) -> None:
    starter = f"""
import json, sys, time
from pathlib import Path
from edgewright_local.processes import ManagedProcess, ProcessSpec
folder = Path({str(tmp_path)!r})
pids = [ManagedProcess.start(ProcessSpec(name, {_SLEEP!r}, folder / name)).pid for name in ("one", "two")]
while len(list(folder.rglob("run/*.pid"))) < 2:
    time.sleep(0.01)
print(json.dumps(pids), flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        pids = json.loads(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
    assert still_running(tmp_path) == ["one", "two"]
    assert sorted(stop_all(tmp_path)) == ["one", "two"]
    assert [start_ticks(pid) for pid in pids] == [None, None]
    assert stop_all(tmp_path) == []


def test_stop_all_finds_the_children_of_a_process_that_was_killed(tmp_path: Path) -> None:
    process = _started(tmp_path, [sys.executable, "-c", _STUBBORN])
    _wait_for_log(process, "worker")
    record = read_record(process.spec.record)
    assert record is not None
    os.kill(process.pid, signal.SIGKILL)
    process._child.wait()
    (worker,) = living_family(record)
    assert stop_all(tmp_path, grace_seconds=0.3) == ["server"]
    assert start_ticks(worker) is None


def test_a_recycled_pid_is_not_killed(tmp_path: Path) -> None:
    process = _started(tmp_path, _SLEEP)
    path = process.spec.record
    written = path.read_text()
    stat, boot, mark = written.splitlines()
    head, _, tail = stat.rpartition(")")
    fields = tail.split()
    fields[19] = str(int(fields[19]) - 1)  # the record of a process that started earlier under this pid
    earlier = f"{head}) {' '.join(fields)}\n{boot}\n{'0' * 32}\n"
    for foreign in (earlier, f"{stat}\nanother-boot\n{mark}\n"):
        path.write_text(foreign)
        assert stop_all(tmp_path) == []
        assert process.running
        assert not path.exists()
    path.write_text(written)
    assert stop_all(tmp_path) == ["server"]
    process.stop()


def test_an_end_before_readiness_quotes_the_log(tmp_path: Path) -> None:
    script = "import sys; print('\\n'.join(f'line {n}' for n in range(100))); sys.exit('no such certificate')"
    process = ManagedProcess.start(ProcessSpec("server", [sys.executable, "-c", script], tmp_path))
    with pytest.raises(ProcessError, match="server ended with code 1 before it was ready") as caught:
        process.wait_until_ready(lambda: False, 20)
    text = str(caught.value)
    assert "no such certificate" in text
    assert str(tmp_path / "server.log") in text
    assert "line 99" in text
    assert "line 50" not in text


def test_a_missed_deadline_stops_the_process_and_quotes_the_log(tmp_path: Path) -> None:
    script = "import time; print('waiting for etcd', flush=True); time.sleep(600)"
    process = ManagedProcess.start(ProcessSpec("server", [sys.executable, "-c", script], tmp_path))
    with pytest.raises(ProcessError, match=r"(?s)not ready after 1 s.*waiting for etcd"):
        process.wait_until_ready(lambda: False, 1.0)
    assert not process.running


def test_an_interrupt_while_waiting_stops_the_process(tmp_path: Path) -> None:
    def interrupted() -> bool:
        raise KeyboardInterrupt

    process = ManagedProcess.start(ProcessSpec("server", _SLEEP, tmp_path))
    with pytest.raises(KeyboardInterrupt):
        process.wait_until_ready(interrupted, 10)
    assert not process.running


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    process = ManagedProcess.start(ProcessSpec("server", [str(tmp_path / "absent")], tmp_path))
    with pytest.raises(ProcessError, match="absent"):
        process.wait_until_ready(lambda: False, 10)


def test_a_second_process_of_one_name_is_refused(tmp_path: Path) -> None:
    process = _started(tmp_path, _SLEEP)
    with pytest.raises(ProcessError, match=f"server already runs from .*pid {process.pid}"):
        ManagedProcess.start(process.spec)
    process.stop()
    _started(tmp_path, _SLEEP).stop()


def test_arguments_reach_the_program_unchanged(tmp_path: Path) -> None:
    said = ["a b", "$HOME", "'q'", "-x", ""]
    script = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['WORD'], sorted(os.environ)]))"
    environment = {"WORD": "as given", "PATH": os.environ["PATH"]}
    process = ManagedProcess.start(ProcessSpec("server", [sys.executable, "-c", script, *said], tmp_path, environment))
    process._child.wait(20)
    arguments, word, names = json.loads(process.spec.log.read_text())
    assert arguments == said
    assert word == "as given"
    assert "HOME" not in names
    assert MARK_VARIABLE in names
    process.stop()


def test_the_record_is_the_owners_only(tmp_path: Path) -> None:
    process = _started(tmp_path, _SLEEP)
    assert process.spec.record.stat().st_mode & 0o777 == 0o600
    process.stop()


def test_a_broken_record_is_removed_and_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "server.pid").write_text("not a record\n")
    assert stop_all(tmp_path) == []
    assert not list(tmp_path.rglob("*.pid"))


def test_stop_all_goes_from_the_newest_to_the_oldest(tmp_path: Path) -> None:
    processes = []
    for name in ("b-first", "a-second", "c-third"):
        processes.append(_started(tmp_path, _SLEEP, name))
        time.sleep(0.03)  # start times count in hundredths of a second
    assert stop_all(tmp_path) == ["c-third", "a-second", "b-first"]
    for process in processes:
        process.stop()


def test_free_ports_differ_and_can_be_bound() -> None:
    ports = free_ports(8)
    assert len(set(ports)) == 8
    assert not any(listens(port) for port in ports)
    with socket.create_server(("127.0.0.1", ports[0])):
        assert listens(ports[0])
