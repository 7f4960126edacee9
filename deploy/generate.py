"""Writes what is generated: CRDs, the chart, dashboards, alerts, messages. `--check` says what is out of date."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from generators import alerts, chart, crds, dashboards, messages, systemd

ROOT = Path(__file__).resolve().parents[1]


def expected(root: Path) -> dict[Path, str]:
    """Path from the repository's root → text of everything that is generated."""
    return {
        **crds.files(),
        **chart.files(root),
        **alerts.files(),
        **dashboards.files(),
        **systemd.files(),
        **messages.files(root),
    }


def outdated(root: Path, files: dict[Path, str]) -> list[Path]:
    """Which of the files lack, or hold something else."""
    return [path for path, text in files.items() if not (root / path).is_file() or (root / path).read_text() != text]


def write(root: Path, files: dict[Path, str], tell: Callable[[str], None]) -> None:
    """Write those that are out of date."""
    for path in outdated(root, files):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(files[path])
        tell(f"wrote {path}")


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 when all is up to date (afterwards), 1 when `--check` found something else."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="Example: python deploy/generate.py --check")
    parser.add_argument("--check", action="store_true", help="change nothing; fail when a file is out of date")
    asked = parser.parse_args(arguments)
    try:
        files = expected(ROOT)
    except chart.BaseChanged as problem:
        print(problem, file=sys.stderr)
        return 1
    if not asked.check:
        write(ROOT, files, print)
        return 0
    stale = outdated(ROOT, files)
    for path in stale:
        print(f"{path} is out of date: run `make generate`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
