"""The bare `session.run` and the agent's in-process tier, alternating call by call blocks: one JSON line."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort

from edgewright_agent.serving import engine
from edgewright_agent.serving.inference import Inference, Limits
from edgewright_agent.serving.metrics import Metrics
from edgewright_agent.serving.slots import Slots
from edgewright_contract import release as releases


def measure(call: Callable[[], object], seconds: float, pause: float) -> list[float]:
    """Microseconds of each call for so many seconds."""
    taken, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        if pause:
            time.sleep(pause)
        start = time.perf_counter_ns()
        call()
        taken.append((time.perf_counter_ns() - start) / 1000)
    return taken


def summary(taken: list[float]) -> dict[str, float]:
    """Quantiles in microseconds, and calls a second without the pauses."""
    p50, p95, p99 = np.percentile(taken, [50, 95, 99])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99), "perSecond": 1e6 / float(np.mean(taken))}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("load", type=Path, help="JSON of the control socket's load request")
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--pause", type=float, default=0.0)
    arguments = parser.parse_args()
    load = json.loads(arguments.load.read_text())
    slots = Slots(Metrics())
    release = releases.parse(Path(load["release"]).read_bytes())
    model = engine.load(Path(load["path"]).read_bytes(), load["digest"], release, load["variant"], load["manifest"])
    slots.put_shadow(load["model"], model)
    slots.promote(load["model"], load["manifest"])
    inference = Inference(slots, Limits())
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    bare = ort.InferenceSession(load["path"], options, providers=["CPUExecutionProvider"])
    watts = np.random.default_rng(1).uniform(0, 2000, (1, 1, model.window.seconds)).astype(np.float32)
    calls: dict[str, list[float]] = {"bare": [], "inprocess": []}
    for _ in range(4):
        calls["bare"] += measure(lambda: bare.run(None, {engine.INPUT: watts}), arguments.seconds / 8, arguments.pause)
        calls["inprocess"] += measure(lambda: inference.in_process("m", watts), arguments.seconds / 8, arguments.pause)
    print(json.dumps({name: summary(taken[20:] or taken) for name, taken in calls.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
