"""The self-test child: `python -m edgewright_agent.selftest`. Runs the golden windows, prints one JSON line.

It may crash or be killed by its limits; the parent (selftest_parent.py) reads the exit and lives on.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from edgewright_contract import release
from edgewright_contract.digests import digest_of

REPEATS = 64  # single-window runs that latency is taken from, beside the golden windows


def main() -> int:
    """Entry point; 0 with a verdict on stdout, anything else is a crash."""
    arguments = _parser().parse_args()
    _limit(arguments.address_bytes, arguments.seconds)
    print(json.dumps(run(arguments.model, arguments.golden, arguments.release, arguments.variant)))
    return 0


def run(model: Path, golden: Path, release_file: Path, variant: str) -> dict[str, Any]:
    """Answers compared and latencies measured: {ok, message, worst, p50Microseconds, p95Microseconds, rssBytes}."""
    import numpy as np
    import onnxruntime

    stated = release.parse(release_file.read_bytes())
    chosen = stated.variant(variant)
    data, windows_data = model.read_bytes(), golden.read_bytes()
    if digest_of(data) != chosen.digest or digest_of(windows_data) != stated.golden.digest:
        return {"ok": False, "message": "the files changed between verification and self-test"}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) not in (2, 3):
        return {"ok": False, "message": "the model must have one input [batch, window] or [batch, 1, window]"}
    windows = np.frombuffer(windows_data, dtype="<u2").reshape(stated.golden.count, -1).astype(np.float32)
    shaped = windows[:, None, :] if len(inputs[0].shape) == 3 else windows
    name, wanted = inputs[0].name, np.asarray(chosen.golden.answers, dtype=np.float64)
    answers = np.concatenate([session.run(None, {name: shaped[i : i + 1]})[0] for i in range(len(shaped))])
    if answers.shape != wanted.shape:
        return {"ok": False, "message": f"answers have shape {answers.shape}, the release says {wanted.shape}"}
    worst = float(np.max(np.abs(answers - wanted)))
    timings = []
    for index in range(REPEATS):
        one = shaped[index % len(shaped)][None]
        began = time.perf_counter_ns()
        session.run(None, {name: one})
        timings.append((time.perf_counter_ns() - began) / 1000)
    within = bool(worst <= chosen.golden.tolerance)  # NaN compares false: refused
    return {
        "ok": within,
        "message": ""
        if within
        else f"differs by {worst:.4g} from the golden answers (tolerance {chosen.golden.tolerance:g})",
        "p50Microseconds": round(float(np.percentile(timings, 50))),
        "p95Microseconds": round(float(np.percentile(timings, 95))),
        "rssBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _limit(address_bytes: int, seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (address_bytes, address_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Run the golden windows of one variant; one JSON line on stdout.")
    for name in ("--model", "--golden", "--release"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--variant", required=True)
    parser.add_argument("--address-bytes", type=int, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
