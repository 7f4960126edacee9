"""Beside traces.read: parsed days on disk, so that only the first run pays for parsing.

The key is a digest of the names and bytes of all files, not of times: a copy of the data in another place finds the
cache again, and a file that was changed without a new time or size cannot pass for the old one. It costs about 0.2 s.
"""

import hashlib
import json
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright_pipelines.data.report import DataReport

if TYPE_CHECKING:
    from edgewright_pipelines.data.traces import Trace

FORMAT = 1  # raise it whenever parsing or judging changes what a file becomes
KEPT = 2  # caches of older data are removed beyond so many; one weighs about 240 MB


def key_of(directory: Path, files: Sequence[Path]) -> str:
    """Digest of the relative names and the content of all files."""
    digest = hashlib.sha256(f"edgewright traces {FORMAT}\n".encode())
    for file in files:
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"{file.relative_to(directory).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()[:32]


def load(cache: Path, key: str, build: "Callable[..., Trace]") -> "tuple[list[Trace], DataReport] | None":
    """What `save` stored, the watts memory-mapped; None when there is nothing or it is damaged."""
    try:
        stored: dict[str, Any] = json.loads((cache / f"traces-{key}.json").read_text(encoding="utf-8"))
        watts = np.load(cache / f"traces-{key}.npy", mmap_mode="r", allow_pickle=False)
        if watts.dtype != np.uint16 or len(watts) != len(stored["traces"]) or zlib.crc32(watts.data) != stored["crc32"]:
            return None
        traces = [build(**fields, watts=row) for fields, row in zip(stored["traces"], watts, strict=True)]
        notes = tuple(stored["report"].pop("notes"))
        return traces, DataReport(**stored["report"], notes=notes)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(cache: Path, key: str, traces: "Sequence[Trace]", report: DataReport) -> None:
    """Store both; the JSON file is renamed into place last, so a half-written cache is never read. Raises OSError."""
    cache.mkdir(parents=True, exist_ok=True)
    watts = np.stack([trace.watts for trace in traces]) if traces else np.empty((0, 86_400), dtype=np.uint16)
    stored = {
        "crc32": zlib.crc32(watts.data),
        "traces": [_fields(trace) for trace in traces],
        "report": asdict(report),
    }
    _replace(cache / f"traces-{key}.npy", lambda file: np.save(file, watts, allow_pickle=False))
    _replace(cache / f"traces-{key}.json", lambda file: file.write(json.dumps(stored).encode()))
    for old in sorted(cache.glob("traces-*.npy"), key=lambda path: path.stat().st_mtime_ns)[:-KEPT]:
        old.with_suffix(".json").unlink(missing_ok=True)
        old.unlink(missing_ok=True)


def _fields(trace: "Trace") -> Mapping[str, Any]:
    return {name: getattr(trace, name) for name in ("name", "appliance", "device", "subset", "date", "gap_seconds")}


def _replace(path: Path, write: Callable[[Any], object]) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".writing-", delete=False) as file:
        partial = Path(file.name)
        try:
            write(file)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    partial.replace(path)
