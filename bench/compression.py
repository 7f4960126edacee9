"""What compression costs and gains: our flow beside torch-pruning's own tutorial with quantize_static, and NNCF.

The same network, data, seeds and steps of training for all, Tracebase (by day) and ACSF1 (the archive's split), in one
run. f1Loss: points of macro-F1 (0 to 100) lost from the FP32 base on the test side. sizeRatio, speedRatioOrt: base
FP32 ONNX file over the variant. speedRatioEager: the base in torch eager, one window and one thread, over the variant.

Examples:
  TRACEBASE_DIR=... python bench/compression.py --seeds 3
  TRACEBASE_DIR=... python bench/compression.py --quick --json
"""

import argparse
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import torch
from compression_peers import datasets, environment, flows
from compression_peers.datasets import Effort
from compression_peers.environment import Unavailable

from edgewright_pipelines import evaluate, latency, machine
from edgewright_pipelines.compress import Kept
from edgewright_pipelines.flow import Line
from edgewright_pipelines.scores import score
from edgewright_pipelines.session import probabilities

OURS, PRUNED, TUTORIAL, NNCF = "ours", "torch-pruning", "torch-pruning + quantize_static", "torch-pruning + nncf"
RATIO: Final = 0.5
FULL: Final = {"tracebase": Effort(6700, 1200, 300), "acsf1": Effort(2500, 800, 300)}
QUICK: Final = {"tracebase": Effort(400, 120, 30), "acsf1": Effort(300, 120, 30)}
EAGER_RUNS: Final = 200


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for."""

    quick: bool
    seeds: int
    cache: Path
    tracebase: Path | None
    acsf1: Path | None
    nncf_python: Path | None


def main() -> None:
    """Run it."""
    options, as_json = _arguments()
    warnings.simplefilter("ignore")  # of torch and of the peers, about themselves
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    began = time.monotonic()
    found: dict[str, Any] = {}
    left_out: list[str] = []
    for name, opened in {"tracebase": _tracebase, "acsf1": _acsf1}.items():
        try:
            runs = [_compared(opened(options, seed), options) for seed in range(1, options.seeds + 1)]
        except Unavailable as error:
            left_out.append(f"{name}: {error}")
            continue
        found[name] = {flow: _mean([run[flow] for run in runs]) for flow in runs[0]}
        _tell(name, found[name])
    if options.quick:
        left_out.append("--quick: one seed and few steps; scores are far below those of a full run")
    summary = _summary(found, left_out, time.monotonic() - began)
    print("left out: " + "; ".join(left_out) if left_out else "nothing left out", file=sys.stderr)
    if as_json:
        print(json.dumps(summary))
    if not found:
        sys.exit(1)


def _arguments() -> tuple[Options, bool]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="at most five minutes")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--seeds", type=int, default=3, help="runs of the whole comparison (--quick: 1)")
    parser.add_argument("--cache", type=Path, default=Path(".edgewright/bench"), help="bases, traces, environments")
    parser.add_argument("--tracebase", type=Path, default=os.environ.get("TRACEBASE_DIR"), help="else $TRACEBASE_DIR")
    parser.add_argument("--acsf1", type=Path, help="folder with ACSF1_TRAIN.ts; else sktime's wheel is fetched")
    parser.add_argument("--nncf-python", type=Path, help="interpreter with NNCF; else an environment is made")
    given = parser.parse_args()
    folder = Path(given.tracebase) if given.tracebase else None
    seeds = 1 if given.quick else given.seeds
    return Options(given.quick, seeds, given.cache, folder, given.acsf1, given.nncf_python), given.json


def _tracebase(options: Options, seed: int) -> Line:
    if options.tracebase is None:
        raise Unavailable("set TRACEBASE_DIR or pass --tracebase")
    effort = (QUICK if options.quick else FULL)["tracebase"]
    chosen = datasets.recipe("bench-tracebase", seed, 4096, effort, ratio=RATIO)
    return datasets.tracebase(options.tracebase, chosen, options.cache)


def _acsf1(options: Options, seed: int) -> Line:
    folder = options.acsf1 or environment.acsf1_folder(options.cache)
    effort = (QUICK if options.quick else FULL)["acsf1"]
    chosen = datasets.recipe("bench-acsf1", seed, datasets.ACSF1_SECONDS, effort, ratio=RATIO)
    return datasets.acsf1(folder, chosen, options.cache)


def _compared(line: Line, options: Options) -> dict[str, dict[str, Any]]:
    base = line.base()
    whole = line.compressor().fp32(base).onnx
    files, skipped = {"base": whole}, {}
    (files[OURS],) = flows.ours(line, base).values()
    pruned = files[PRUNED] = flows.tutorial(line, base)
    makers: dict[str, Callable[[], bytes]] = {
        TUTORIAL: lambda: flows.quantized_static(line, pruned),
        NNCF: lambda: flows.nncf(line, pruned, options.nncf_python or environment.nncf_python(options.cache)),
    }
    for name, make in makers.items():
        try:
            files[name] = make()
        except Exception as error:  # whatever a peer does, the others are compared
            skipped[name] = {"skipped": f"{type(error).__name__}: {error}"}
    return _figures(line, base, files) | skipped


def _figures(line: Line, base: Kept, files: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    example = evaluate.example(line.test)
    taken = latency.measure(files, example)
    eager = _eager(base, example)
    f1 = {name: score(probabilities(file, line.test.watts), line.test).macro_f1 for name, file in files.items()}
    figures = {}
    for name, file in files.items():
        figures[name] = {
            "f1Loss": 100 * (f1["base"] - f1[name]),
            "sizeRatio": len(files["base"]) / len(file),
            "speedRatioOrt": taken["base"].p50 / taken[name].p50,
            "speedRatioEager": eager / taken[name].p50,
            "macroF1": f1[name],
            "bytes": len(file),
            "p50Microseconds": taken[name].p50,
            "layersLeftInFloat": flows.left_in_float(file),
        }
    return figures


def _eager(base: Kept, example: Any) -> float:
    """Median microseconds of the trained network in torch, one window."""
    watts = torch.from_numpy(example.astype(np.float32))[None, None, :]
    times = []
    with torch.no_grad():
        for _ in range(EAGER_RUNS):
            began = time.perf_counter_ns()
            base.network(watts)
            times.append(time.perf_counter_ns() - began)
    return float(np.median(times)) / 1000.0


def _mean(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds; a flow that was skipped once stays skipped."""
    if skipped := [run for run in runs if "skipped" in run]:
        return skipped[0]
    return {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}


def _tell(name: str, flows_of: dict[str, dict[str, Any]]) -> None:
    print(f"\n{name:34} F1 loss   size x   ORT x  eager x   bytes     us")
    for flow, figures in flows_of.items():
        if "skipped" in figures:
            print(f"{flow:34} skipped: {figures['skipped']}")
            continue
        print(
            f"{flow:34} {figures['f1Loss']:7.2f} {figures['sizeRatio']:8.2f} {figures['speedRatioOrt']:7.2f}"
            f" {figures['speedRatioEager']:8.2f} {figures['bytes']:7.0f} {figures['p50Microseconds']:6.1f}"
        )


def _summary(found: dict[str, Any], left_out: list[str], seconds: float) -> dict[str, Any]:
    """At the top the flows on the first data set that was there; below, all."""
    first = next(iter(found), None)
    flows_of = {name: figures for name, figures in found[first].items() if name != "base"} if first else {}
    return {
        **flows_of,
        "dataset": first,
        "datasets": found,
        "leftOut": left_out,
        "machine": machine.described(),
        "seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    main()
