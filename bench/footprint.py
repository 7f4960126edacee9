"""What the agent takes on a node: disk, memory of all its processes, time to serve after exec, processor when idle.

Examples:
  python bench/footprint.py                 a fresh environment, ten idle minutes
  python bench/footprint.py --quick --json  the same with twenty idle seconds
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent))

from serving_peers import bench_model
from serving_peers.report import deliver, say
from serving_peers.servers import Unavailable
from serving_peers.site import ROOT, Site, zero_answers

PRUNED: Final = (
    "numpy/**/tests",
    "numpy/f2py",
    "numpy/_pyinstaller",
    "onnxruntime/tools",
    "onnxruntime/transformers",
    "onnxruntime/quantization",
    "onnxruntime/datasets",
    "onnxruntime/backend",
    "onnxruntime/capi/libonnxruntime.so*",  # the same runtime once more, for C programs
    "**/*.pyi",
    "**/*.pyx",
    "**/include",
)
"""What an image of the agent can leave out: nothing of it is imported (this bench serves without it)."""
STRIPPED: Final = ("uvloop/*.so", "httptools/**/*.so", "cryptography/**/*.so")
"""Libraries that ship with debug symbols; NumPy's OpenBLAS is repackaged in a way that a strip breaks."""


def fresh_environment(folder: Path) -> Path:
    """The interpreter of an environment with nothing but the agent's package and what it needs.

    Raises:
        Unavailable: it does not install.
    """
    uv = shutil.which("uv") or str(ROOT / ".tools/uv/bin/uv")
    python = folder / "bin/python"
    parts = [str(ROOT / "contract"), str(ROOT / "edge-agent")]
    try:
        if Path(uv).exists():
            subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
            # copies: links would let what is cut below be cut in uv's cache, and so in every other environment
            install = [uv, "pip", "install", "--quiet", "--link-mode", "copy", "--python", str(python)]
            subprocess.run([*install, *parts], check=True, timeout=600)
        else:
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
            pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-compile"]
            subprocess.run([*pip, *parts], check=True, timeout=600)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"the agent does not install into a fresh environment: {error}") from None
    return python


def prune(site: Path) -> None:
    """Remove what is never imported, then compile the rest, so that a start need not."""
    for pattern in PRUNED:
        for path in list(site.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if shutil.which("strip"):
        libraries = [str(path) for pattern in STRIPPED for path in site.glob(pattern) if path.stat().st_nlink == 1]
        subprocess.run(["strip", "--strip-unneeded", *libraries], check=False, capture_output=True)
    compiled = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(site)], check=False, env=compiled)


def sizes(site: Path) -> dict[str, float]:
    """Megabytes of the packages, greatest first."""
    found = {item.name: _megabytes(item) for item in site.iterdir()}
    return dict(sorted(found.items(), key=lambda pair: -pair[1])[:12])


def _megabytes(path: Path) -> float:
    files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file() and not item.is_symlink()]
    return round(sum(item.stat().st_size for item in files) / 1e6, 1)


def family(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def pss(pids: Iterable[int]) -> dict[str, float]:
    """Proportional megabytes by what each process runs."""
    found = {}
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        name = "server" if any(b"serving" in word for word in words) else "supervisor"
        found[name] = round(found.get(name, 0.0) + kilobytes / 1e3, 1)
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system seconds so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(folder: Path, idle_seconds: float) -> dict[str, Any]:
    """All of it."""
    say("installing the agent alone")
    python = fresh_environment(folder / "env")
    packages = next((folder / "env/lib").glob("python3*/site-packages"))
    prune(packages)
    say("starting the API server and the agent")
    (folder / "site").mkdir()
    with Site(folder / "site", str(python)) as site:
        model = bench_model.make(88)
        live = site.publish(1, model, zero_answers(model))
        site.wish(live)
        site.start_agent(TRIAL_SECONDS="0")  # idle is what a settled release does, not one that is watched closely
        site.until(lambda: site.state(live["manifest"]) == "Live")
        site.stop_agent()
        ready = []
        for _ in range(3):
            site.start_agent()
            ready.append(site.until(site.serves))
            if len(ready) < 3:
                site.stop_agent()
        say(f"idle for {idle_seconds:g} s")
        time.sleep(5)
        assert site.process is not None
        pids = family(site.process.pid)
        before, start = cpu_seconds(pids), time.perf_counter()
        time.sleep(idle_seconds)
        idle = (cpu_seconds(pids) - before) / (time.perf_counter() - start)
        memory = pss(pids)
    return {
        "pssMegabytes": round(sum(memory.values()), 1),
        "pssByProcess": memory,
        "diskMegabytes": _megabytes(packages),
        "diskByPackage": sizes(packages),
        "readySeconds": round(sorted(ready)[1], 3),
        "idleCpuPercent": round(100 * idle, 3),
        "idleSeconds": idle_seconds,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where the agent cannot be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="twenty idle seconds instead of ten minutes")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="edgewright-footprint-") as folder:
        try:
            result = measure(Path(folder), 20.0 if arguments.quick else 600.0)
        except Unavailable as error:
            say(f"bench/footprint.py: {error}")
            return 1
    for name, value in result.items():
        print(f"{name:>16}  {value}")
    if arguments.quick:
        print("Left out by --quick: all but 20 s of the 600 idle seconds.")
    deliver(result, arguments.out, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
