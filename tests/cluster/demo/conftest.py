"""A clone in which the demo runs: on a small recipe, with a home and a folder for temporary files of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgewright_local.binaries import cache_directory

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Clone:
    """What a user has after `git clone`, with a home of its own; `start` runs `edgewright demo` in it."""

    folder: Path
    recipe: Path
    environment: dict[str, str]

    @property
    def workspace(self) -> Path:
        return self.folder / ".edgewright"

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "edgewright_cli.main", "demo", "--recipe", str(self.recipe), *arguments]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def files(self) -> set[str]:
        """What lies outside the workspace, in the clone, in its home and among temporary files."""
        found = (file for file in self.folder.parent.rglob("*") if not file.is_relative_to(self.workspace))
        return {str(file.relative_to(self.folder.parent)) for file in found if not file.is_dir()}


@pytest.fixture
def clone(tmp_path: Path, tiny_recipe_file: Path) -> Clone:
    recipe = tmp_path / "unpruned.toml"  # a pruned network agrees with nobody after seconds of training
    recipe.write_text(re.sub(r"pruning = .*", "pruning = []", tiny_recipe_file.read_text()))
    for name in ("clone", "home", "temporary"):
        (tmp_path / name).mkdir()
    for name in ("deploy", "pipelines"):
        (tmp_path / "clone" / name).symlink_to(ROOT / name)
    own = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "temporary")}
    kept = {name: value for name, value in os.environ.items() if name not in ("TRACEBASE_DIR", "XDG_CACHE_HOME")}
    return Clone(tmp_path / "clone", recipe, kept | own | {"EDGEWRIGHT_CACHE": str(cache_directory())})
