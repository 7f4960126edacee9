"""Beside the runs: finished cells as small JSON files, each with the hash of what decided it."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def digest(decided: Mapping[str, Any]) -> str:
    """`sha256:…` of what decides a cell."""
    return f"sha256:{hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Store:
    """The folder of finished cells."""

    folder: Path

    def read(self, name: str, wanted: str) -> dict[str, Any] | None:
        """A cell's content if it was decided by `wanted`; a damaged or stale file counts as missing."""
        try:
            found = json.loads(self.path(name).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) and found.get("decidedBy") == wanted else None

    def write(self, name: str, wanted: str, content: Mapping[str, Any]) -> None:
        """Keep a cell whole or not at all. Raises OSError; cells that were kept before stay."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.path(name)
        part = file.with_name(f"{file.name}.{os.getpid()}.part")
        text = json.dumps({"decidedBy": wanted, **content}, sort_keys=True, separators=(",", ":"))
        try:
            part.write_text(text + "\n", encoding="utf-8")
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)

    def path(self, name: str) -> Path:
        """Where a cell stands."""
        return self.folder / f"{name}.json"
