"""Containment: six kinds of bad release and many healthy ones through the operator's own decisions, on simulated nodes.

Beside it the rules that Argo Rollouts' users write (failureLimit 0, consecutiveErrorLimit 4) see the same figures, and,
with --real, each bad release goes to four real agents behind a real API server.

Examples:
  python bench/containment.py --quick --json
  python bench/containment.py --real           the real agents too; three minutes more
"""

import argparse
import json
import math
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from contained.fault import Fault
from contained.simulation import INTERVAL, SWAP_SECONDS, Outcome, Setting, Simulation, mean

from edgewright_contract import keys

RECOVERY_SECONDS = 5.0


def say(text: str) -> None:
    """Progress for people."""
    print(text, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0; 1 where a promise of the issue does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rollouts: the rates are coarse (under a minute)")
    parser.add_argument("--real", action="store_true", help="each bad release on four real agents too")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--runs", type=int, help="healthy rollouts, and bad ones, for the rates")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    runs = asked.runs or (120 if asked.quick else 3000)
    with TemporaryDirectory() as folder:
        key_file = Path(folder) / "permit.key"
        key_file.write_bytes(keys.private_pem(keys.generate()))
        found = _faults(key_file, asked.seed, asked.json) | _rates(key_file, asked.seed, runs)
    if asked.quick:
        left = f"all but {runs} of 3,000 healthy and of 3,000 bad rollouts (a rate below 1 in {runs} cannot be seen)"
        say(f"--quick leaves out: {left}{'' if asked.real else '; real agents'}")
    if not asked.real:
        say(f"recoverySeconds: the agent's part is taken to be {SWAP_SECONDS:.0f} s; --real measures it")
    if asked.real:
        from contained import real  # brings MLflow, which takes seconds

        found["real"] = real.measured(say)
    kept = found["falseAbortRate"] <= 1e-3 and found["missedAbortRate"] <= 1e-3
    kept &= all(row["detected"] and row["recoverySeconds"] <= RECOVERY_SECONDS for row in found["faults"].values())
    kept &= all(row["recoverySeconds"] <= RECOVERY_SECONDS for row in found.get("real", {}).values())
    if asked.json:
        print(json.dumps(found, sort_keys=True))
    else:
        for name in ("falseAbortRate", "missedAbortRate", "argoFalseAbortRate", "argoMissedAbortRate"):
            print(f"{name:20} {found[name]:.4f}  ({runs} rollouts)")
    return 0 if kept else 1


def _faults(key_file: Path, seed: int, quiet: bool) -> dict[str, Any]:
    """Each fault once on 1,000 nodes with the default waves, gates and soak, in steps of five seconds."""
    setting = Setting(1000, {"waves": [{"nodes": 10}, {"percent": 10}, {"percent": 50}, {"percent": 100}]})
    rows = {}
    for fault in Fault:
        outcome = Simulation(setting, fault, random.Random(f"{seed}/{fault}"), key_file).run(5.0, 400)
        detected = outcome.aborted and outcome.seen_after <= INTERVAL and not outcome.over_wave
        rows[fault.value] = {
            "detected": detected,
            "exposedNodes": outcome.exposed,
            "seenAfterSeconds": _finite(outcome.seen_after),
            "recoverySeconds": _finite(outcome.recovery),
            "argoSeconds": _finite(outcome.argo_after),
        }
        if not quiet:
            print(f"{fault:10} {rows[fault.value]}", flush=True)
    return {"faults": rows, **rows, "nodes": setting.nodes, "agentSwapSecondsAssumed": SWAP_SECONDS}


def _rates(key_file: Path, seed: int, runs: int) -> dict[str, Any]:
    """Many rollouts over 60 nodes, a step an interval: how often a healthy one is stopped and a bad one is not."""
    setting = Setting(60, {"soak": "2m", "maxUnavailable": "100%"})
    healthy = list(_outcomes(setting, None, runs, seed, key_file))
    bad = list(_outcomes(setting, Fault, runs, seed + 1, key_file))
    return {
        "rollouts": runs,
        "falseAbortRate": mean([one.aborted for one in healthy]),
        "missedAbortRate": mean([not one.aborted for one in bad]),
        "argoFalseAbortRate": mean([one.argo_aborted for one in healthy]),
        "argoMissedAbortRate": mean([not one.argo_aborted for one in bad]),
        "exposedOverWave": sum(one.over_wave for one in (*healthy, *bad)),
    }


def _outcomes(setting: Setting, faults: type[Fault] | None, runs: int, seed: int, key_file: Path) -> Iterator[Outcome]:
    kinds = list(faults) if faults else [None]
    for index in range(runs):
        rng = random.Random(seed * 1_000_003 + index)
        yield Simulation(setting, kinds[index % len(kinds)], rng, key_file).run(INTERVAL, 60)
        if sys.stderr.isatty() and index % 50 == 0:
            print(f"\r{index}/{runs}", end="", file=sys.stderr)


def _finite(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended then too
    sys.exit(main())
