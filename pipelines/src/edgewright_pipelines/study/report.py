"""The study's last step: everything that is told about finished cells, written to files."""

import json
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgewright_pipelines.data.source import Source
from edgewright_pipelines.study import markdown, page
from edgewright_pipelines.study.results import collect
from edgewright_pipelines.study.settings import Loaded
from edgewright_pipelines.study.store import Store
from edgewright_pipelines.study.summary import as_json, summarize

LIBRARIES = ("torch", "torch-pruning", "onnx", "onnxruntime", "scikit-learn", "numpy")


@dataclass(frozen=True, slots=True)
class Places:
    """Where the report goes: study.json into `results`, the Markdown, the HTML page into `pages`."""

    results: Path
    document: Path
    pages: Path

    @property
    def page(self) -> Path:
        """The HTML file."""
        return self.pages / "study.html"


def write(loaded: Loaded, source: Source, kept: Store, places: Places) -> dict[str, Any]:
    """Write all three and give what study.json holds. Raises OSError."""
    results = collect(loaded, kept, source.digest())
    summary = summarize(loaded, results)
    versions = {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
    told = as_json(loaded, results, summary, versions)
    text = markdown.render(loaded, results, summary)
    for folder in (places.results, places.document.parent, places.pages):
        folder.mkdir(parents=True, exist_ok=True)
    (places.results / "study.json").write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    places.document.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    places.page.write_text(page.render(loaded, results, summary, text), encoding="utf-8")
    return told
