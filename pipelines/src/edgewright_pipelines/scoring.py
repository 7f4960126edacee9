"""Scores a finished release on any Tracebase folder, from files whose digests fit: what `edgewright evaluate` runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright_contract import names
from edgewright_contract.digests import digest_of
from edgewright_contract.release import Release, parse
from edgewright_pipelines import windows
from edgewright_pipelines.data.traces import Trace
from edgewright_pipelines.scores import Scores, score
from edgewright_pipelines.session import probabilities


class ScoringError(ValueError):
    """The release or the data cannot be scored; the text says why."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One variant on one folder of traces; days of classes that the release does not know are counted apart."""

    variant: str
    scores: Scores
    unknown_days: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "variant": self.variant,
            "macroF1": self.scores.macro_f1,
            "dayMacroF1": self.scores.macro_f1_by_day,
            "accuracy": self.scores.accuracy,
            "bce": self.scores.bce,
            "perClass": self.scores.f1_by_class,
            "windows": self.scores.windows,
            "days": self.scores.days,
            "unknownClasses": self.unknown_days,
        }


def read_release(folder: Path) -> Release:
    """The release.json of a folder that holds it, or holds a `release` folder with it.

    Raises:
        ScoringError: there is none, or it is not valid.
    """
    for candidate in (folder, folder / names.RELEASE_FOLDER):
        file = candidate / names.RELEASE_FILE
        if file.is_file():
            try:
                return parse(file.read_bytes())
            except ValueError as error:
                raise ScoringError(f"{file}: {error}") from None
    raise ScoringError(f"{folder} holds no {names.RELEASE_FILE}: name the folder of a release")


def onnx_of(folder: Path, release: Release, variant: str) -> bytes:
    """The variant's file, if its bytes are those of release.json.

    Raises:
        ScoringError: no such variant, no such file, or other bytes.
    """
    try:
        wanted = release.variant(variant)
    except KeyError:
        known = ", ".join(entry.name for entry in release.variants)
        raise ScoringError(f"variant {variant} is not in the release; it has {known}") from None
    root = folder if (folder / names.RELEASE_FILE).is_file() else folder / names.RELEASE_FOLDER
    try:
        data = (root / wanted.file).read_bytes()
    except OSError as error:
        raise ScoringError(f"{wanted.file} cannot be read: {error.strerror}") from None
    if digest_of(data) != wanted.digest:
        raise ScoringError(f"{wanted.file} is not the file that release.json names: its digest differs")
    return data


def score_release(folder: Path, traces: Sequence[Trace], variant: str | None) -> Scored:
    """Score one variant (the first when none is named) on windows that do not overlap.

    Raises:
        ScoringError: see read_release and onnx_of, or no trace of a known class has an active window.
    """
    release = read_release(folder)
    name = variant or release.variants[0].name
    onnx = onnx_of(folder, release, name)
    known = [trace for trace in traces if trace.appliance in release.labels]
    unknown = Counter(trace.appliance for trace in traces if trace.appliance not in release.labels)
    seconds = release.window.seconds
    cut = windows.cut(known, release.labels, window=seconds, hop=seconds)
    if not len(cut):
        raise ScoringError(f"no trace of a class that the release knows has an active window of {seconds} s")
    return Scored(name, score(probabilities(onnx, cut.watts), cut), dict(sorted(unknown.items())))
