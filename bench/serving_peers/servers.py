"""Environments, start and end of the servers that are compared; each peer's environment is its own and kept."""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
ONNX: Final = "onnxruntime==1.32.0"
MLSERVER: Final = ("mlserver==1.7.1", ONNX, "uvloop==0.21.0")  # its workers die with uvloop 0.23
READY_SECONDS: Final = 90.0


class Unavailable(Exception):
    """The peer cannot be measured here; the sentence says why."""


@dataclass(frozen=True)
class Door:
    """One way into a server: the client's mode, where to connect, and the request's bytes."""

    name: str
    mode: str
    address: str
    request: bytes


@dataclass(frozen=True)
class Peer:
    """How to install and start a server, and its ways in."""

    name: str
    packages: tuple[str, ...]
    command: tuple[str, ...]
    doors: tuple[Door, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    """Written into its working folder before it starts."""


def cache_folder() -> Path:
    """Where environments and the load client are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edgewright" / "bench"


def environment(packages: Sequence[str], log: Callable[[str], None]) -> Path:
    """The interpreter of an environment with exactly these packages.

    Raises:
        Unavailable: they do not install.
    """
    key = hashlib.sha256("\n".join([sys.version, *packages]).encode()).hexdigest()[:16]
    folder = cache_folder() / f"env-{key}"
    python = folder / "bin" / "python"
    if (folder / ".complete").exists():
        return python
    log(f"installing {', '.join(packages)} (once)")
    shutil.rmtree(folder, ignore_errors=True)
    uv = shutil.which("uv") or str(HERE.parents[1] / ".tools/uv/bin/uv")
    try:
        if Path(uv).exists():
            _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)])
            _run([uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *packages])
        else:
            _run([sys.executable, "-m", "venv", str(folder)])
            _run([str(python), "-m", "pip", "install", "--quiet", *packages])
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = (getattr(error, "stderr", None) or "").strip().splitlines()
        raise Unavailable(f"does not install: {said[-1] if said else error}") from None
    (folder / ".complete").touch()
    return python


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=900)


def client_binary() -> Path:
    """The load client, compiled from client.c.

    Raises:
        Unavailable: no C compiler.
    """
    source = HERE.parent / "client.c"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Unavailable("the load client needs a C compiler (cc); install gcc or clang")
    target = cache_folder() / f"client-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        _run([compiler, "-O2", "-D_GNU_SOURCE", "-o", str(target), str(source)])
    return target


def pin(core: int | None) -> list[str]:
    """Prefix of a command that keeps it on one core, where the machine has more than one; none: on all of them.

    As root it also runs before other work on the machine (lowest real-time priority): every server and the client.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2 or not shutil.which("taskset"):
        return []
    first = ["chrt", "--rr", "1"] if os.geteuid() == 0 and shutil.which("chrt") else []
    return first if core is None else [*first, "taskset", "-c", str(cores[core % len(cores)])]


def pin_this() -> None:
    """Put the calling thread, when it is a client itself, where `pin(1)` puts the load client."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[1]})
        if os.geteuid() == 0:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def start(
    command: Sequence[str], folder: Path, variables: Mapping[str, str], *, core: int | None = 0, **options: Any
) -> subprocess.Popen[bytes]:
    """Start a server on the first core, its words in a file of its folder."""
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    words = (folder / "output.log").open("wb")
    with words:
        return subprocess.Popen(
            [*pin(core), *command],
            cwd=folder,
            env={**os.environ, **threads, **variables},
            stdout=words,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )


def start_peer(peer: Peer, folder: Path, model: Path, log: Callable[[str], None]) -> subprocess.Popen[bytes]:
    """Install, start and wait until it answers at its first door.

    Raises:
        Unavailable: it does not install, ends, or never answers.
    """
    python = environment(peer.packages, log)
    folder.mkdir(parents=True)
    for name, text in peer.files.items():
        (folder / name).write_text(text)
    variables = {
        "BENCH_MODEL": str(model),
        "PYTHONPATH": str(HERE),
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "BENTOML_DO_NOT_TRACK": "True",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [str(python) if part == "python" else part for part in peer.command]
    if not Path(command[0]).is_absolute():
        command[0] = str(python.parent / command[0])
    process = start(command, folder, variables)
    try:
        wait_ready(peer.doors[0], process, folder)
    except Unavailable:
        end(process)
        raise
    return process


def wait_ready(door: Door, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for the first good answer.

    Raises:
        Unavailable: the process ended or time is up.
    """
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if _answers(door):
            return
        time.sleep(0.2)
    words = (folder / "output.log").read_text(errors="replace").strip().splitlines()
    why = f"ended with {process.poll()}" if process.poll() is not None else f"no answer in {READY_SECONDS:g} s"
    raise Unavailable(f"{why}: {words[-1][:200] if words else 'it said nothing'}")


def _answers(door: Door) -> bool:
    host, _, port = door.address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5) as client:
            client.sendall(door.request)
            return client.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def end(process: subprocess.Popen[bytes]) -> None:
    """End the process and the children that it started, by its own process group."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)  # workers that outlived it; the group is its own
    process.wait(10)


def load(client: Path, door: Door, folder: Path, **options: float) -> dict[str, Any]:
    """One run of the load client on the second core.

    Raises:
        Unavailable: the client could not connect or the server closed on it.
    """
    request = folder / f"{door.name}.request"
    request.write_bytes(door.request)
    given = {"connections": 1, "seconds": 1.0, "pause": 0.0, "rate": 0.0, "warmup": 20} | options
    numbers = [str(given[key]) for key in ("connections", "seconds", "pause", "rate", "warmup")]
    command = [*pin(1), str(client), door.mode, door.address, str(request), *numbers]
    done = subprocess.run(command, capture_output=True, text=True, timeout=float(given["seconds"]) + 60)
    if done.returncode:
        raise Unavailable(f"{door.name}: {done.stderr.strip()[:200]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result
