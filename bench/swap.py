"""Hot swaps under load: 1,000 swaps, ten a second, while 2,000 requests a second are answered; each is checked.

Examples:
  python bench/swap.py                 1,000 swaps, about two minutes
  python bench/swap.py --quick --json  100 swaps
"""

import argparse
import json
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from serving_peers import bench_model, wire
from serving_peers.ours import Agent
from serving_peers.report import deliver, say
from serving_peers.servers import Unavailable, pin_this
from serving_peers.site import Site, zero_answers

RATE, CLIENTS = 2000.0, 4
TESTED = ("Tested", "Shadow", "Live")
STEADY, SWAPPING, HURRIED = PHASES = ("steady", "ten swaps a second", "swaps without a pause")
PAUSE = 0.1
BIAS = 8.0
"""What the two versions differ by: version 2 says the first class whatever it sees, version 1 never does."""


@dataclass
class Seen:
    """What the clients saw; seconds of each request by phase."""

    taken: dict[str, list[float]] = field(default_factory=lambda: {phase: [] for phase in PHASES})
    failed: int = 0
    mixed: int = 0
    versions: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Client(threading.Thread):
    """One connection on a schedule; checks that each answer is that of the version it names."""

    def __init__(self, port: int, request: bytes, seen: Seen, phase: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self.port, self.request, self.seen, self.phase = port, request, seen, phase

    def run(self) -> None:
        pin_this()
        taken: dict[str, list[float]] = {phase: [] for phase in PHASES}
        failed, mixed, versions = 0, 0, set()
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            due = time.perf_counter()
            while self.phase["now"]:
                due += CLIENTS / RATE
                time.sleep(max(0.0, due - time.perf_counter()))
                start, phase = time.perf_counter(), self.phase["now"] or STEADY
                client.sendall(self.request)
                status, body = _answer(client)
                taken[phase].append(time.perf_counter() - start)
                if status != 200:
                    failed += 1
                    continue
                version, first = body["model_version"], body["outputs"][0]["data"][0]
                versions.add(version)
                mixed += (first > 0.5) != (version == "2")
        with self.seen.lock:
            for phase, values in taken.items():
                self.seen.taken[phase] += values
            self.seen.failed += failed
            self.seen.mixed += mixed
            self.seen.versions |= versions


def _answer(client: socket.socket) -> tuple[int, dict[str, Any]]:
    data = b""
    while b"\r\n\r\n" not in data:
        part = client.recv(65_536)
        if not part:
            return 0, {}
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r")[0])
    while len(body) < length:
        body += client.recv(65_536)
    return int(head[9:12]), json.loads(body)


def rss(pid: int) -> float:
    """Resident megabytes of the process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6


def measure(swaps: int, folder: Path) -> dict[str, Any]:
    """All of it."""
    watts = np.random.default_rng(1).uniform(0, 2000, (1, 1, bench_model.WINDOW)).astype(np.float32)
    loads = [
        bench_model.write(folder / f"v{version}", bench_model.make(16, bias), version, f"sha256:{version:064x}")
        for version, bias in ((1, -BIAS), (2, BIAS))
    ]
    agent = Agent(folder / "agent", core=None)  # a model is loaded in a thread of its own
    try:
        for load in (*loads, *loads):  # the first loads grow the process once, which is not what is counted
            agent.go_live(load)
        seen, phase = Seen(), {"now": STEADY}
        clients = [Client(agent.port, wire.v2_json(watts, "/v2/models/m/infer"), seen, phase) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        time.sleep(3)
        phase["now"] = HURRIED
        _swap(agent, loads, 20, 0.0)
        before, phase["now"] = rss(agent.process.pid), SWAPPING
        to_serving = _swap(agent, loads, swaps, PAUSE)
        phase["now"] = STEADY
        time.sleep(1)
        after, phase["now"] = rss(agent.process.pid), HURRIED
        _swap(agent, loads, 100, 0.0)
        phase["now"] = ""
        for client in clients:
            client.join(20)
        return _result(seen, swaps, after - before, to_serving)
    finally:
        agent.close()


def _swap(agent: Agent, loads: Sequence[dict[str, Any]], swaps: int, pause: float) -> list[float]:
    """Swap to and fro; seconds from `load`, with which a tested model goes on, until the new one answers, for each."""
    taken = []
    for index in range(swaps):
        load = loads[index % 2]
        time.sleep(pause)
        start = time.perf_counter()
        agent.ask(load)
        agent.ask({"op": "promote", "model": load["model"], "manifest": load["manifest"]})
        taken.append(time.perf_counter() - start)
        if index % 100 == 99:
            say(f"{index + 1} of {swaps} swaps")
    return taken


def change_to_tested(folder: Path, times: int) -> float:
    """Median milliseconds from a changed EdgeNode to the agent's word that it has tested the new model of 1 MB.

    Download, signature, structure and self-test in a process of its own are all in it; the API server is real.
    """
    folder.mkdir()
    taken = []
    with Site(folder, sys.executable) as site:
        site.start_agent()
        for version in range(1, times + 2):
            model = bench_model.make(160, version / 10)
            live = site.publish(version, model, zero_answers(model))
            start = time.perf_counter()
            site.wish(live)
            site.until(lambda live=live: site.state(live["manifest"]) in TESTED)  # type: ignore[misc]
            taken.append(time.perf_counter() - start)
            site.until(lambda live=live: site.state(live["manifest"]) == "Live")  # type: ignore[misc]
    return round(statistics.median(taken[1:]) * 1e3)  # the first one waits for the agent's own start


def _result(seen: Seen, swaps: int, growth: float, to_serving: list[float]) -> dict[str, Any]:
    p99 = {phase: float(np.percentile(values, 99)) for phase, values in seen.taken.items()}
    return {
        "swaps": swaps,
        "requests": sum(len(values) for values in seen.taken.values()),
        "failed": seen.failed,
        "mixed": seen.mixed,
        "versions": sorted(seen.versions),
        "rssGrowthMegabytes": round(growth, 2),
        "p99Ratio": round(p99[SWAPPING] / p99[STEADY], 2),
        "p99RatioWithoutPause": round(p99[HURRIED] / p99[STEADY], 2),
        "p99Microseconds": {phase: round(value * 1e6) for phase, value in p99.items()},
        "testedToServingMilliseconds": round(float(np.percentile(to_serving, 99)) * 1e3, 2),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where a request failed or an answer was mixed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 swaps")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--swaps", type=int)
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="edgewright-swap-") as folder:
        try:
            result = measure(arguments.swaps or (100 if arguments.quick else 1000), Path(folder))
            say("object change to Tested, with a real API server")
            changed = change_to_tested(Path(folder) / "site", 3 if arguments.quick else 9)
            result["changeToTestedMilliseconds"] = changed
        except Unavailable as error:
            say(f"bench/swap.py: {error}")
            return 1
    for name, value in result.items():
        print(f"{name:>28}  {value}")
    if arguments.quick:
        print("Left out by --quick: 900 of the 1,000 swaps, and 6 of the 9 object changes.")
    deliver(result, arguments.out, as_json=arguments.json)
    return 1 if result["failed"] or result["mixed"] else 0


if __name__ == "__main__":
    sys.exit(main())
