"""Serving speed beside seven peers in one run: what each adds to the bare `session.run`, and how much it can bear.

Examples:
  python bench/serving.py                 all peers, about 9 minutes after the first run, which installs them
  python bench/serving.py --quick --json  two peers, closed loop only, under a minute once they are installed
  python bench/serving.py --parts pauses --out FILE
                                          one part of it, put into a file that holds the others
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from serving_peers import bench_model, catalog, overload, wire
from serving_peers.ours import Agent
from serving_peers.report import deliver, load_table, say
from serving_peers.servers import HERE, Door, Unavailable, client_binary, end, load, pin, start, start_peer

from edgewright_local.ports import free_ports

LARGE, SMALL = 88, 16
"""Channels: about 120 µs and 20 µs on the machine that the goals were set on."""
TRANSPORTS: Final = ("transportUnix", "transportTcp")
"""A uvloop server that answers constant bytes: what the machine takes for a round trip."""
PARTS: Final = ("closed", "pauses", "throughput", "bounds")
"""Latency in a closed loop and with pauses, requests a second when saturated, ours with a small model and overload."""
OUR_DOORS: Final = ("unix", "httpBinary", "httpJson", "grpc")


class Bench:
    """One run: the servers, the rounds, the figures."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.quick, self.folder, self.client = arguments.quick, folder, client_binary()
        self.rounds = arguments.rounds or 5
        self.seconds = 0.4 if self.quick else 1.0
        self.large = bench_model.write(folder / "large", bench_model.make(LARGE))
        self.small = bench_model.write(folder / "small", bench_model.make(SMALL))
        self.watts = np.random.default_rng(1).uniform(0, 2000, (1, 1, bench_model.WINDOW)).astype(np.float32)
        self.missing: dict[str, str] = {}

    def our_doors(self, agent: Agent, rows: int = 1) -> list[Door]:
        """The agent's ways in."""
        watts, address = np.repeat(self.watts, rows, 0), f"127.0.0.1:{agent.port}"
        return [
            Door("unix", "frame", str(agent.frames), wire.frame(watts, "m")),
            Door("httpBinary", "http", address, wire.v2_binary(watts, catalog.PATH)),
            Door("httpJson", "http", address, wire.v2_json(watts, catalog.PATH)),
            Door("grpc", "grpc", str(agent.grpc), wire.grpc(watts, "m")),
        ]

    def start_echo(self, doors: Sequence[Door]) -> tuple[subprocess.Popen[bytes], list[Door]]:
        """The transport alone, for requests as long as ours."""
        unix, http = doors[0], doors[1]
        port, path = free_ports(1)[0], str(self.folder / "echo.sock")
        command = [
            sys.executable,
            str(HERE / "echo.py"),
            str(port),
            path,
            str(len(http.request)),
            str(len(unix.request)),
        ]
        process = start(command, self.folder, {})
        while not Path(path).exists():
            time.sleep(0.05)
        time.sleep(0.2)
        return process, [
            Door("transportUnix", "frame", path, unix.request),
            Door("transportTcp", "http", f"127.0.0.1:{port}", http.request),
        ]

    def start_peers(self, names: Sequence[str]) -> tuple[list[subprocess.Popen[bytes]], list[Door]]:
        """All peers that can be had; the others are noted with their reason."""
        processes, doors = [], []
        for index, peer in enumerate(catalog.peers(self.watts, self.folder)):
            if names and peer.name not in names:
                continue
            say(f"starting {peer.name}")
            try:
                model = self.folder / "large" / "full.onnx"
                processes.append(start_peer(peer, self.folder / f"peer{index}", model, say))
                doors += peer.doors
            except Unavailable as error:
                self.missing[peer.name] = str(error)
                say(f"{peer.name} is left out: {error}")
        return processes, doors

    def bare(self, load_file: Path, pause: float = 0.0) -> dict[str, dict[str, float]]:
        """The bare session and the in-process tier."""
        command = [*pin(0), sys.executable, str(HERE / "in_process.py"), str(load_file)]
        command += ["--seconds", str(self.seconds), "--pause", str(pause)]
        variables = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables, timeout=120)
        result: dict[str, dict[str, float]] = json.loads(done.stdout)
        return result

    def latencies(self, doors: Sequence[Door], pause: float) -> dict[str, dict[str, float]]:
        """Alternating rounds in random order; medians over the rounds."""
        found: dict[str, list[dict[str, float]]] = defaultdict(list)
        for number in range(self.rounds):
            say(f"pause {pause * 1e3:g} ms: round {number + 1} of {self.rounds}")
            for door in random.sample([None, *doors], len(doors) + 1):
                if door is None:
                    for name, values in self.bare(self.folder / "large" / "load.json", pause).items():
                        found[name].append(values)
                    continue
                try:
                    found[door.name].append(self.one(door, pause=pause * 1e6))
                except Unavailable as error:
                    self.missing[door.name] = str(error)
                    say(f"{door.name} is left out of this round: {error}")
        return {name: _medians(values) for name, values in found.items() if values}

    def one(self, door: Door, **options: float) -> dict[str, float]:
        """One run of the load client.

        Raises:
            Unavailable: an answer was no 200.
        """
        result = load(self.client, door, self.folder, **({"seconds": self.seconds} | options))
        good, bad = result["statuses"].get("200", 0), {k: v for k, v in result["statuses"].items() if k != "200"}
        if bad or result["broken"] or not good:
            raise Unavailable(f"{door.name} answered {result['statuses']}, {result['broken']} broken")
        return {"p50": result["p50"], "p99": result["p99"], "perSecond": good / result["seconds"]}

    def throughput(self, doors: Sequence[Door], connections: int, rounds: int = 3) -> dict[str, float]:
        """Requests a second in a closed loop over so many connections."""
        found: dict[str, list[float]] = defaultdict(list)
        for number in range(rounds):
            say(f"{connections} connections: round {number + 1} of {rounds}")
            for door in random.sample(list(doors), len(doors)):
                try:
                    found[door.name].append(self.one(door, connections=connections)["perSecond"])
                except Unavailable as error:
                    self.missing[f"{door.name}, {connections} connections"] = str(error)
        return {name: statistics.median(values) for name, values in found.items() if values}


def _medians(values: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(item[key] for item in values) for key in ("p50", "p99", "perSecond")}


def figures(latencies: dict[str, dict[str, float]]) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
    """Ours, the peers, and the ratio of each peer's overhead to ours of the same kind of body."""
    bare = latencies["bare"]["p50"]
    rows = {
        name: {
            "p50Microseconds": round(item["p50"], 1),
            "p99Microseconds": round(item["p99"], 1),
            "overheadMicroseconds": round(item["p50"] - bare, 1),
            "inferencesPerSecond": round(item["perSecond"]),
        }
        for name, item in latencies.items()
    }
    for name in TRANSPORTS:
        rows[name]["overheadMicroseconds"] = rows[name]["p50Microseconds"]  # nothing runs in it
    ours = {name: rows[name] for name in ("bare", "inprocess", *TRANSPORTS, *OUR_DOORS)}
    peers = {name: row for name, row in rows.items() if name not in ours}
    ratio = {}
    for name, row in peers.items():
        own = ours["httpBinary" if "gRPC" in name else "httpJson"]
        ratio[name] = round(row["overheadMicroseconds"] / own["overheadMicroseconds"], 2)
    return ours, peers, ratio


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {"cpu": model, "cores": os.cpu_count(), "python": sys.version.split()[0], "load": os.getloadavg()[0]}


def measure(bench: Bench, names: Sequence[str], parts: Sequence[str]) -> dict[str, Any]:
    """These parts, as one JSON object."""
    result: dict[str, Any] = {"missing": bench.missing}
    agent, processes = Agent(bench.folder / "agent", grpc=True), []
    try:
        agent.go_live(bench.large)
        if set(parts) & {"closed", "pauses", "throughput"}:
            processes, peer_doors = bench.start_peers(names)
            echo, echo_doors = bench.start_echo(bench.our_doors(agent))
            processes.append(echo)
            doors = [*bench.our_doors(agent), *echo_doors, *peer_doors]
        if "closed" in parts:
            ours, peers, ratio = figures(bench.latencies(doors, 0.0))
            result |= {"ours": ours, "peers": peers, "ratio": ratio, "machine": machine()}
        if "pauses" in parts:
            pauses = (0.001, 0.01)
            result["pauses"] = {f"{pause * 1e3:g} ms": figures(bench.latencies(doors, pause)) for pause in pauses}
        if "throughput" in parts:
            result["throughput"] = {str(count): bench.throughput(doors, count) for count in (8, 32)}
        for process in processes:
            end(process)
        processes = []
        if "bounds" in parts:
            result["small"] = small_model(bench, agent)
            agent.go_live(bench.large | {"manifest": "sha256:" + "c" * 64})
            result["overload"] = overload.measure(bench.client, bench.our_doors(agent)[1], agent, bench.folder, say)
        return result
    finally:
        for process in processes:
            end(process)
        agent.close()


def small_model(bench: Bench, agent: Agent) -> dict[str, float]:
    """The small variant: inferences a second and core, one and eight windows a request."""
    agent.go_live(bench.small | {"manifest": "sha256:" + "b" * 64})
    bare = bench.bare(bench.folder / "small" / "load.json")["bare"]
    single = bench.throughput(bench.our_doors(agent), 8)
    eight = bench.throughput(bench.our_doors(agent, rows=8), 8)
    return {
        "bareMicroseconds": round(bare["p50"], 1),
        **{f"{name}PerSecond": round(value) for name, value in single.items()},
        **{f"{name}WindowsPerSecondByEight": round(8 * value) for name, value in eight.items()},
    }


def table(result: dict[str, Any]) -> str:
    """The latency part as a Markdown table."""
    lines = ["| server | p50 µs | p99 µs | overhead µs | requests/s | overhead to ours |", "|---|--:|--:|--:|--:|--:|"]
    for name, row in {**result["ours"], **result["peers"]}.items():
        times = f"{result['ratio'][name]:.1f}" if name in result["ratio"] else ""
        cells = (
            row["p50Microseconds"],
            row["p99Microseconds"],
            row["overheadMicroseconds"],
            row["inferencesPerSecond"],
        )
        lines.append(f"| {name} | {' | '.join(f'{cell:,.0f}' for cell in cells)} | {times} |")
    lines += [f"\n{name}: not measured, it {reason}" for name, reason in result["missing"].items()]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where nothing could be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two peers, closed loop, short rounds")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--rounds", type=int, help="alternating rounds (5)")
    parser.add_argument("--only", nargs="*", default=[], help="names of peers")
    parser.add_argument("--parts", nargs="*", choices=PARTS, help="only these parts")
    parser.add_argument("--out", type=Path, help="also write the JSON here; with --parts the others' figures stay")
    arguments = parser.parse_args(argv)
    names = arguments.only or (catalog.QUICK if arguments.quick else ())
    parts = arguments.parts or (("closed",) if arguments.quick else PARTS)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgewright-bench-") as folder:
        try:
            result = measure(Bench(arguments, Path(folder)), names, parts)
        except Unavailable as error:
            say(f"bench/serving.py: {error}")
            return 1
    if arguments.parts and arguments.out and arguments.out.exists():
        former = json.loads(arguments.out.read_text())
        result = {**former, **result, "missing": {**former["missing"], **result["missing"]}}
    else:
        result["seconds"] = round(time.monotonic() - began)
    if arguments.quick:
        result["leftOut"] = (
            "peers but MLServer REST/gRPC with parallel_workers=0 and FastAPI; pauses; throughput; overload"
        )
    if "ours" in result:
        print(table(result))
    if "pauses" in result or "throughput" in result:
        print(f"\n{load_table(result)}")
    if arguments.quick:
        print(f"\nLeft out by --quick: {result['leftOut']}.")
    deliver(result, arguments.out, as_json=arguments.json, ensure_ascii=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
