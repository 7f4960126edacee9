"""Beside the stages: how this project opens and runs an exported file, everywhere the same."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

INPUT = "watts"
OUTPUT = "probabilities"
CHUNK = 256  # windows in one run; more would only take memory

Floats = npt.NDArray[np.float32]


def opened(model: bytes, *, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session on the CPU with so many threads and without spinning, as an edge node runs it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def probabilities(model: bytes, windows: npt.NDArray[Any]) -> Floats:
    """Answers float32 [n, classes] of an exported file to windows [n, window] in watts."""
    session = opened(model)
    if not len(windows):
        return np.zeros((0, session.get_outputs()[0].shape[1]), dtype=np.float32)
    parts = []
    for start in range(0, len(windows), CHUNK):
        watts = windows[start : start + CHUNK].astype(np.float32)[:, None, :]
        parts.append(session.run([OUTPUT], {INPUT: watts})[0])
    return np.concatenate(parts)
