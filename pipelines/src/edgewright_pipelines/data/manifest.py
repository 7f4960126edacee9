"""Beside fetch: which files the data consists of and the sha256 of each, as a small text file in the package.

A line `[complete/Toaster]` opens a folder; the lines below are `<sha256 of the uncompressed file> <file name>`.
"""

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import PurePosixPath

Manifest = Mapping[str, str]  # path below the data folder, uncompressed name -> sha256 of its bytes

_LINE = re.compile(r"^([0-9a-f]{64}) (\S.*)$")


class ManifestError(ValueError):
    """A manifest that cannot be used; the text names the line."""


def packaged() -> Manifest:
    """The manifest of the pinned data: 1,407 day traces. Other days of the public set are kept out on purpose."""
    return parse_manifest(files("edgewright_pipelines.data").joinpath("tracebase.sha256").read_text(encoding="utf-8"))


def parse_manifest(text: str) -> Manifest:
    """Read the text form. Raises ManifestError for a line of another form, a path that leaves the folder or twice."""
    entries: dict[str, str] = {}
    folder = PurePosixPath()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            folder = PurePosixPath(line[1:-1])
            continue
        match = _LINE.match(line)
        path = folder / match[2] if match else PurePosixPath("..")
        if not match or ".." in path.parts or path.is_absolute() or str(path) in entries:
            raise ManifestError(
                f"Line {number} of the manifest is {line!r}; '<sha256> <new file name>' should stand there."
            )
        entries[str(path)] = match[1]
    if not entries:
        raise ManifestError("The manifest names no file.")
    return entries


def write_manifest(entries: Manifest) -> str:
    """The text form, sorted."""
    lines: list[str] = []
    folder = None
    for path in sorted(map(PurePosixPath, entries)):
        if path.parent != folder:
            folder = path.parent
            lines.append(f"[{folder}]")
        lines.append(f"{entries[str(path)]} {path.name}")
    return "\n".join(lines) + "\n"
