"""Stage `evaluate.measure → release.build → publish.to_mlflow`: variants become files of a release, still unsigned."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from pydantic import ValidationError

from edgewright_contract import dsse, names
from edgewright_contract import release as contract
from edgewright_contract.digests import digest_of
from edgewright_contract.models import first_fault
from edgewright_contract.timestamps import rfc3339
from edgewright_pipelines.session import probabilities


class ReleaseError(ValueError):
    """The parts do not make a release; the text says which."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of one exported file. Latency in microseconds; accuracy None where the data was synthetic."""

    parameters: int
    macs: int
    p50_microseconds: float
    p95_microseconds: float
    accuracy: contract.Accuracy | None


@dataclass(frozen=True, slots=True)
class BuiltVariant:
    """One exported file and where it comes from; `parent` names the FP32 variant of an INT8 one."""

    name: str
    onnx: bytes
    precision: contract.Precision
    parent: str | None
    pruning: contract.Pruning | None
    figures: Figures
    reference: contract.Reference | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Name of the registered model and what made the release; digests as `sha256:…`."""

    registered_model: str
    recipe_digest: str
    data_digest: str
    synthetic: bool
    created: datetime
    run_id: str | None = None
    task: contract.TaskName = contract.TaskName.IDENTIFY


@dataclass(frozen=True, slots=True)
class UnsignedRelease:
    """All files but release.json, and that document without its number and sequence, which publishing gives."""

    registered_model: str
    files: Mapping[str, bytes]
    draft: Mapping[str, Any]

    def numbered(self, version: int, sequence: int) -> dict[str, bytes]:
        """All files, release.json among them: what is signed."""
        document = {**self.draft, "version": version, "sequence": sequence}
        contract.Release.model_validate(document)
        return {**self.files, names.RELEASE_FILE: dsse.canonical(document)}


def again(files: Mapping[str, bytes], *, not_after: int | None = None) -> UnsignedRelease:
    """The same release to be published anew: same files and digests, another number and sequence.

    files: path → bytes of a verified release. not_after: UTC seconds after which no node installs it; None: no end.

    Raises:
        NotARelease: release.json is not valid.
    """
    known = contract.parse(files[names.RELEASE_FILE])
    draft = known.model_dump(mode="json", by_alias=True, exclude={"version", "sequence"})
    rest = {path: data for path, data in files.items() if path != names.RELEASE_FILE}
    return UnsignedRelease(known.registered_model, rest, {**draft, "notAfter": not_after})


def build(
    origin: Origin,
    window: contract.Window,
    labels: Sequence[str],
    variants: Sequence[BuiltVariant],
    golden: npt.NDArray[np.uint16],
    *,
    tolerance: float,
    not_after: int | None = None,
    audited: Sequence[str] = (),
) -> UnsignedRelease:
    """Assemble a release. golden: windows [count, window seconds] in watts; audited: lines of the card about the audit.

    The golden answers are computed here, by ONNX Runtime with one thread, from the very bytes that are released.

    Raises:
        ReleaseError: parts that do not fit, with the place.
    """
    if golden.dtype != np.uint16 or golden.ndim != 2 or golden.shape[1] != window.seconds:
        raise ReleaseError(f"golden windows are uint16 [count, {window.seconds}], not {golden.dtype} {golden.shape}")
    raw = golden.astype("<u2").tobytes()
    files = {names.GOLDEN_FILE: raw}
    entries = []
    for variant in variants:
        file = f"{names.VARIANT_FOLDER}/{variant.name}.onnx"
        files[file] = variant.onnx
        entries.append(_entry(variant, file, golden, tolerance))
    document: dict[str, Any] = {
        "registered_model": origin.registered_model,
        "task": origin.task,
        "labels": list(labels),
        "window": window,
        "variants": entries,
        "golden": {"file": names.GOLDEN_FILE, "digest": digest_of(raw), "count": len(golden)},
        "provenance": _provenance(origin),
        "not_after": not_after,
    }
    checked = _checked(document)
    files[names.CARD_FILE] = card(checked, audited).encode()
    draft = checked.model_dump(mode="json", by_alias=True, exclude={"version", "sequence"})
    return UnsignedRelease(origin.registered_model, files, draft)


def card(release: contract.Release, audited: Sequence[str] = ()) -> str:
    """The card: what a person reads before believing the release; `audited`: lines about the audit."""
    source = "made-up data: its scores mean nothing" if release.provenance.synthetic else "measured data"
    lines = [
        f"# {release.registered_model}",
        "",
        f"Answers {', '.join(release.labels)} from {release.window.seconds} s of watts at 1 Hz. Learned from {source}.",
        "",
        "| variant | precision | bytes | MACs | p50 µs | macro F1 | day macro F1 |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for variant in release.variants:
        scores = variant.accuracy
        quality = f"{scores.macro_f1:.3f} | {scores.day_macro_f1:.3f}" if scores else "- | -"
        time = variant.latency.p50_microseconds
        lines.append(
            f"| {variant.name} | {variant.precision} | {variant.bytes} | {variant.macs} | {time:.0f} | {quality} |"
        )
    lines += ["", *audited, f"Recipe {release.provenance.recipe_digest}", f"Data {release.provenance.data_digest}", ""]
    return "\n".join(lines)


def _checked(document: Mapping[str, Any]) -> contract.Release:
    """As a release whose number and sequence are not given yet."""
    try:
        return contract.Release.model_validate({**document, "version": 1, "sequence": 1})
    except ValidationError as error:
        raise ReleaseError(first_fault(error, whole="release")) from None


def _entry(variant: BuiltVariant, file: str, golden: npt.NDArray[np.uint16], tolerance: float) -> dict[str, Any]:
    answers = probabilities(variant.onnx, golden).astype(np.float64)
    return {
        "name": variant.name,
        "file": file,
        "digest": digest_of(variant.onnx),
        "bytes": len(variant.onnx),
        "precision": variant.precision,
        "parent": variant.parent,
        "pruning": variant.pruning,
        "parameters": variant.figures.parameters,
        "macs": variant.figures.macs,
        "accuracy": variant.figures.accuracy,
        "latency": {
            "p50_microseconds": variant.figures.p50_microseconds,
            "p95_microseconds": variant.figures.p95_microseconds,
            "machine": f"{platform.machine()} {platform.system()}",
            "runtime_version": onnxruntime.__version__,
        },
        # softmax in float32 may exceed 1 by a rounding step
        "golden": {"answers": np.clip(answers, 0.0, 1.0).tolist(), "tolerance": tolerance},
        "reference": variant.reference,
    }


def _provenance(origin: Origin) -> dict[str, Any]:
    return {
        "recipe_digest": origin.recipe_digest,
        "data_digest": origin.data_digest,
        "synthetic": origin.synthetic,
        "created": rfc3339(origin.created),
        "run_id": origin.run_id,
    }
