"""The engine's three verbs: load, self_check, predict. Watts go in, probabilities come out.

There is no fourth to close a model: its memory returns when the last request that still holds it has ended.
"""

import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from edgewright_agent.serving.stated import Reference, Release, Window
from edgewright_contract.digests import digest_of

Watts = npt.NDArray[np.float32]
Probabilities = npt.NDArray[np.float32]

INPUT: Final = "watts"
OUTPUT: Final = "probabilities"


class EngineError(Exception):
    """The file cannot be served; the sentence says why."""


@dataclass(frozen=True)
class Model:
    """One loaded variant. Never changed: a swap puts another one in its place."""

    version: int
    variant: str
    labels: tuple[str, ...]
    window: Window
    manifest: str
    digest: str
    session: Any
    max_rows: int
    """Rows that one call may take: 1 where the file has a fixed batch of 1."""
    row_seconds: float
    """Measured at warm-up: one window alone."""
    reference: Reference | None = None
    """What it answered on validation windows, where the release says it."""


def load(data: bytes, digest: str, release: Release, variant: str, manifest: str) -> Model:
    """Make a model of exactly these bytes and warm it up.

    Raises:
        EngineError: wrong digest, unreadable file, wrong input or output, or an answer that is none.
    """
    found = digest_of(data)
    if found != digest:
        raise EngineError(f"The file's digest is {found}, not {digest}; fetch it again.")
    try:
        listed = release.variant(variant)
    except KeyError:
        raise EngineError(f"release.json has no variant {variant!r}.") from None
    if listed.digest != digest:
        raise EngineError(f"release.json gives variant {variant} the digest {listed.digest}, not {digest}.")
    try:
        session = ort.InferenceSession(data, _options(), providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises many types, none of them public
        raise EngineError(f"ONNX Runtime cannot load variant {variant}: {str(error)[:300]}") from error
    max_rows = _check_signature(session, release.window.seconds, len(release.labels))
    known = (release.version, variant, tuple(release.labels), release.window, manifest, digest, session, max_rows)
    return Model(*known, self_check(Model(*known, 0.0)), listed.reference)


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # a spinning thread would burn an edge core
    options.log_severity_level = 3
    return options


def _check_signature(session: ort.InferenceSession, seconds: int, classes: int) -> int:
    inputs = {item.name: item for item in session.get_inputs()}
    outputs = {item.name: item for item in session.get_outputs()}
    if set(inputs) != {INPUT} or inputs[INPUT].type != "tensor(float)":
        raise EngineError(f"The file must have one input {INPUT!r} of float32; it has {sorted(inputs)}.")
    if OUTPUT not in outputs or outputs[OUTPUT].type != "tensor(float)":
        raise EngineError(f"The file must have an output {OUTPUT!r} of float32; it has {sorted(outputs)}.")
    shape, out = inputs[INPUT].shape, outputs[OUTPUT].shape
    if len(shape) != 3 or shape[1] not in (1, None) or (isinstance(shape[2], int) and shape[2] != seconds):
        raise EngineError(f"Input {INPUT!r} has shape {shape}; the release says [batch, 1, {seconds}].")
    if len(out) != 2 or (isinstance(out[1], int) and out[1] != classes):
        raise EngineError(f"Output {OUTPUT!r} has shape {out}; the release says [batch, {classes}].")
    return shape[0] if isinstance(shape[0], int) else 1 << 16


def self_check(model: Model) -> float:
    """Run a window of zeros a few times; give the median seconds of one run.

    Raises:
        EngineError: no finite [1, classes] came out.
    """
    window = np.zeros((1, 1, model.window.seconds), np.float32)
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        try:
            answer = predict(model, window)
        except Exception as error:
            raise EngineError(f"Variant {model.variant} fails on a window of zeros: {str(error)[:300]}") from error
        taken.append(time.perf_counter() - start)
        if answer.shape != (1, len(model.labels)) or not np.isfinite(answer).all():
            raise EngineError(f"Variant {model.variant} gives no finite [1, {len(model.labels)}] for zeros.")
    return sorted(taken)[2]


def predict(model: Model, watts: Watts) -> Probabilities:
    """Probabilities, [rows, classes], of raw watts, [rows, 1, window seconds]; rows <= model.max_rows."""
    answer: Probabilities = model.session.run([OUTPUT], {INPUT: watts})[0]
    return answer
