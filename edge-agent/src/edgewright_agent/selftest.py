"""The self-test child: `python -m edgewright_agent.selftest`. Runs the golden windows of a job, prints one JSON line.

It may crash or be killed by its limits; the parent (selftest_parent.py) reads the exit and lives on. The job has all
that it needs of release.json, because pydantic would take longer to import than NumPy and ONNX Runtime together.
"""

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, TypedDict

from edgewright_contract.digests import digest_of

REPEATS = 64  # single-window runs that latency is taken from, beside the golden windows


class Job(TypedDict):
    """What is tested: one JSON object on stdin."""

    model: str
    """Path of the model file, and its digest."""
    model_digest: str
    golden: str
    """Path of the golden windows, and their digest."""
    golden_digest: str
    answers: list[list[float]]
    """Probabilities, [windows][classes], that it must give."""
    tolerance: float


def main() -> None:
    """Entry point; 0 with a verdict on stdout, anything else is a crash."""
    arguments = _parser().parse_args()
    _limit(arguments.address_bytes, arguments.seconds)
    import numpy  # noqa: F401 - while the parent still downloads and verifies
    import onnxruntime  # noqa: F401

    job: Job = json.load(sys.stdin)
    print(json.dumps(run(job)), flush=True)
    os._exit(0)  # the process is of no further use, and to take an interpreter apart takes time


def run(job: Job) -> dict[str, Any]:
    """Answers compared and latencies measured: {ok, message, p50Microseconds, p95Microseconds, rssBytes}."""
    import numpy as np

    data, windows_data = Path(job["model"]).read_bytes(), Path(job["golden"]).read_bytes()
    if digest_of(data) != job["model_digest"] or digest_of(windows_data) != job["golden_digest"]:
        return {"ok": False, "message": "the files changed between verification and self-test"}
    session = _session(data)
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) not in (2, 3):
        return {"ok": False, "message": "the model must have one input [batch, window] or [batch, 1, window]"}
    wanted = np.asarray(job["answers"], dtype=np.float64)
    windows = np.frombuffer(windows_data, dtype="<u2").reshape(len(wanted), -1).astype(np.float32)
    shaped = windows[:, None, :] if len(inputs[0].shape) == 3 else windows
    name = inputs[0].name
    answers = np.concatenate([session.run(None, {name: shaped[i : i + 1]})[0] for i in range(len(shaped))])
    if answers.shape != wanted.shape:
        return {"ok": False, "message": f"answers have shape {answers.shape}, the release says {wanted.shape}"}
    worst, tolerance = float(np.max(np.abs(answers - wanted))), job["tolerance"]
    if not worst <= tolerance:  # so that NaN is refused
        return {"ok": False, "message": f"differs by {worst:.4g} from the golden answers (tolerance {tolerance:g})"}
    taken = [_microseconds(session, {name: shaped[index % len(shaped)][None]}) for index in range(REPEATS)]
    return {
        "ok": True,
        "p50Microseconds": round(float(np.percentile(taken, 50))),
        "p95Microseconds": round(float(np.percentile(taken, 95))),
        "rssBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _session(data: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _microseconds(session: Any, feed: dict[str, Any]) -> float:
    began = time.perf_counter_ns()
    session.run(None, feed)
    return (time.perf_counter_ns() - began) / 1000


def _limit(address_bytes: int, seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (address_bytes, address_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Run the golden windows of one variant; one JSON line on stdout.")
    parser.add_argument("--address-bytes", type=int, required=True, help="address space it may take")
    parser.add_argument("--seconds", type=int, required=True, help="processor time it may take")
    return parser


if __name__ == "__main__":
    main()
