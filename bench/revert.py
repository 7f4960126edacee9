"""A release on trial crashes, hangs or answers NaN: seconds until the former one answers again, with no operator.

Examples:
  python bench/revert.py                 three rounds of each, about a minute and a half
  python bench/revert.py --quick --json  one round of each
"""

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import onnx
from onnx import helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent))

from serving_peers import bench_model
from serving_peers.report import deliver, say
from serving_peers.servers import Unavailable
from serving_peers.site import Site, zero_answers

GOAL_SECONDS = 3.0
LIMIT_WATTS = 5000.0


def brittle(width: int) -> bytes:
    """The bench model behind a square root that is NaN above 5,000 W."""
    model = onnx.load_from_string(bench_model.make(width))
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array([LIMIT_WATTS], np.float32), "limit"))
    left = helper.make_node("Sub", ["limit", "watts"], ["left"])
    root = helper.make_node("Sqrt", ["left"], ["root"])
    graph.node[0].input[0] = "root"
    graph.node.insert(0, root)
    graph.node.insert(0, left)
    return bytes(model.SerializeToString())


def server_pid(supervisor: int) -> int:
    """The one child that stays."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return int(children[0])


class Trial:
    """Version 1 settled, a later one on trial; faults happen to that."""

    def __init__(self, site: Site) -> None:
        self.site, self.version = site, 0
        self.publish(bench_model.make(16))

    def publish(self, model: bytes) -> None:
        """Bring the next version to Live."""
        self.version += 1
        live = self.site.publish(self.version, model, zero_answers(model))
        self.site.wish(live)
        self.site.until(lambda: self.site.state(live["manifest"]) == "Live")

    def serving(self) -> int:
        """Version that answers; 0 where none does."""
        try:
            answer = httpx2.get(f"http://127.0.0.1:{self.site.port}/v2/models/m", trust_env=False, timeout=30)
            return int(answer.json()["versions"][0]) if answer.status_code == 200 else 0
        except httpx2.HTTPError:
            return 0

    def seconds(self, model: bytes, fault: Callable[["Trial"], None]) -> float:
        """From the decisive fault of a new version to the first answer of the one before it."""
        before = self.version
        self.publish(model)
        fault(self)
        start = time.perf_counter()
        self.site.until(lambda: self.serving() == before)
        taken = time.perf_counter() - start
        self.publish(bench_model.make(16, self.version))  # something good in between
        return taken

    def kill(self, number: int) -> None:
        """Send the server a signal."""
        assert self.site.process is not None
        os.kill(server_pid(self.site.process.pid), number)

    def push(self, watts: float) -> None:
        """Ten minutes of readings."""
        now = int(time.time()) - 1200
        readings = [{"t": now + index, "watts": watts} for index in range(1200)]
        url = f"http://127.0.0.1:{self.site.port}/v1/readings"
        httpx2.post(url, json={"readings": readings}, trust_env=False, timeout=30).raise_for_status()


def crash(trial: Trial) -> None:
    """Die twice; the second death decides."""
    trial.kill(signal.SIGSEGV)
    trial.site.until(lambda: trial.serving() == trial.version)
    trial.kill(signal.SIGSEGV)


def hang(trial: Trial) -> None:
    """Stop, and answer nothing."""
    trial.kill(signal.SIGSTOP)


def nan(trial: Trial) -> None:
    """Readings on which it has no finite answer."""
    trial.push(LIMIT_WATTS + 1000)


def measure(rounds: int) -> dict[str, Any]:
    """Seconds of each round by fault."""
    taken: dict[str, list[float]] = {"crash": [], "hang": [], "nan": []}
    with tempfile.TemporaryDirectory(prefix="edgewright-revert-") as folder, Site(Path(folder), sys.executable) as site:
        site.start_agent()
        trial = Trial(site)
        for number in range(rounds):
            for name, model, fault in (
                ("crash", bench_model.make(16), crash),
                ("hang", bench_model.make(16), hang),
                ("nan", brittle(16), nan),
            ):
                taken[name].append(trial.seconds(model, fault))
                say(f"round {number + 1} of {rounds}: {name} {taken[name][-1]:.2f} s")
    return {
        **{f"{name}Seconds": round(statistics.median(values), 2) for name, values in taken.items()},
        "worstSeconds": round(max(max(values) for values in taken.values()), 2),
        "goalSeconds": GOAL_SECONDS,
        "rounds": rounds,
        "load": round(os.getloadavg()[0], 1),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where the worst round missed the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of each")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    arguments = parser.parse_args(argv)
    try:
        result = measure(1 if arguments.quick else 3)
    except Unavailable as error:
        say(f"bench/revert.py: {error}")
        return 2
    for name, value in result.items():
        print(f"{name:14} {value}")
    if arguments.quick:
        print("Left out by --quick: two of the three rounds.")
    deliver(result, None, as_json=arguments.json)
    return 0 if result["worstSeconds"] <= GOAL_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
