"""How long hostile clients hold up the server's event loop: the longest wait of a ping while each of them is at work.

Examples:
  python bench/stall.py                 ten seconds of each
  python bench/stall.py --quick --json  two seconds of each
"""

import argparse
import contextlib
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from serving_peers import bench_model
from serving_peers.ours import Agent
from serving_peers.report import deliver, say
from serving_peers.servers import Unavailable

from edgewright_agent.serving.protocol_v2 import MAX_NUMBERS

LIMIT: Final = 50.0
"""Milliseconds that nothing may hold up the loop."""
PAUSE: Final = 0.002
MEGABYTE: Final = 1024 * 1024
INFER: Final = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: n\r\ncontent-type: application/json\r\n"


def _posted(path: bytes, body: bytes) -> bytes:
    head = b"POST %s HTTP/1.1\r\nhost: n\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (path, len(body)) + body


def _gigabyte(port: int) -> None:
    """Bodies of 1 GB, stated and chunked."""
    for kind in (b"content-length: 1073741824\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n"):
        piece = b" " * MEGABYTE if b"length" in kind else b"%x\r\n%s\r\n" % (MEGABYTE, b" " * MEGABYTE)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(INFER + kind)
            for _ in range(1024):
                client.sendall(piece)


def _connections(port: int) -> None:
    """10,000 connections at once, a third with half a head."""
    held = []
    try:
        for index in range(10_000):
            client = socket.socket()
            client.settimeout(5)
            client.connect(("127.0.0.1", port))
            if index % 3 == 0:
                client.send(b"POST /v2/models/m/infer HTTP/1.1\r\n")
            held.append(client)
            if len(held) > 900:  # as many as one process may hold; the server has turned the first ones away by now
                held.pop(0).close()
    finally:
        for client in held:
            client.close()


def _headers(port: int) -> None:
    """Heads of a megabyte: one long header, and many short ones."""
    for head in (b"x: " + b"a" * MEGABYTE, b"".join(b"h%d: 1\r\n" % index for index in range(60_000))):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(INFER + head)
            client.recv(65_536)


def _bodies(body: bytes, path: bytes = b"/v2/models/m/infer") -> Callable[[int], None]:
    request = _posted(path, body)

    def send(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            for _ in range(8):
                client.sendall(request)
                while client.recv(MEGABYTE)[-1:] not in (b"}", b""):
                    pass

    return send


def _trickle(port: int) -> None:
    """Bodies in chunks of one byte each."""
    piece = b"1\r\n5\r\n" * 150_000
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(INFER + b"transfer-encoding: chunked\r\n\r\n")
        for _ in range(8):
            client.sendall(piece)


def _pipelined(port: int) -> None:
    """Requests without end, none of which waits for an answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        for _ in range(8):
            client.sendall(b"GET /healthz HTTP/1.1\r\nhost: n\r\n\r\n" * 25_000)


def _tensor(rows: int, data: bytes) -> bytes:
    head = b'{"inputs":[{"name":"watts","datatype":"FP32","shape":[%d,1,%d],"data":' % (rows, bench_model.WINDOW)
    return head + data + b"}]}"


def _windows(rows: int) -> bytes:
    """So many windows as JSON, six bytes for each number."""
    return _tensor(rows, b"[" + b",".join([b"12.34"] * (rows * bench_model.WINDOW)) + b"]")


def _nested() -> bytes:
    """A megabyte of lists in lists, each with one number."""
    return _tensor(1, b"[" + b",".join([b"[" * 30 + b"5" + b"]" * 30] * 16_000) + b"]")


def _readings(count: int) -> bytes:
    """Readings of so many seconds of the past."""
    start = int(time.time()) - count
    return b'{"readings":[' + b",".join(b'{"t":%d,"watts":5}' % (start + index) for index in range(count)) + b"]}"


def attacks() -> dict[str, Callable[[int], None]]:
    """Each in a process of its own, again and again, four at a time."""
    return {
        "body of 1 GB": _gigabyte,
        "10,000 connections": _connections,
        "heads of 1 MB": _headers,
        "brackets, 1 MB": _bodies(b'{"inputs":' + b"[" * (MEGABYTE - 100)),
        "nested lists, 1 MB": _bodies(_nested()),
        "numbers, 1 MB": _bodies(_windows((MEGABYTE - 1000) // (6 * bench_model.WINDOW))),
        "numbers, most": _bodies(_windows(MAX_NUMBERS // bench_model.WINDOW)),
        "chunks of a byte": _trickle,
        "pipelined": _pipelined,
        "readings, 1 MB": _bodies(_readings(37_000), b"/v1/readings"),
    }


def _again(attack: str, port: int) -> None:
    found = attacks()[attack]
    os.nice(19)  # the one who pings is not to wait for them
    while True:
        with contextlib.suppress(OSError):
            found(port)


@dataclass(frozen=True)
class Ping:
    """One ping on the control socket, in milliseconds."""

    held: float
    """Until its answer, less what the server's thread, or the one that pings, waited for a processor."""
    ran: float
    """How long the server's thread ran until then: on a busy machine the better figure."""


def pings(agent: Agent, seconds: float) -> list[Ping]:
    """Ping for so long."""
    taken, until = [], time.perf_counter() + seconds
    with socket.socket(socket.AF_UNIX) as client, client.makefile("rwb") as file:
        client.connect(str(agent.control))
        while time.perf_counter() < until:
            before, own, start = _schedule(agent.process.pid), _schedule(os.getpid()), time.perf_counter()
            file.write(b'{"op":"ping"}\n')
            file.flush()
            file.readline()
            passed = (time.perf_counter() - start) * 1e3
            ran, waited = (now - then for now, then in zip(_schedule(agent.process.pid), before, strict=True))
            own_wait = _schedule(os.getpid())[1] - own[1]
            taken.append(Ping(max(0.0, passed - waited - own_wait), max(0.0, ran - own_wait)))
            time.sleep(PAUSE)
    return taken


def _schedule(pid: int) -> tuple[float, float]:
    """Milliseconds that the main thread ran, and that it was ready and got no processor."""
    ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(ran) / 1e6, int(waited) / 1e6


def measure(seconds: float, folder: Path) -> dict[str, Any]:
    """All of them, one after the other."""
    loads = bench_model.write(folder / "v1", bench_model.make(16), 1, "sha256:" + "1" * 64)
    agent = Agent(folder / "agent", core=None)
    try:
        agent.go_live(loads)
        rows = {"nobody": _row(pings(agent, seconds))}
        for name in attacks():
            clients = [multiprocessing.Process(target=_again, args=(name, agent.port), daemon=True) for _ in range(4)]
            for client in clients:
                client.start()
            time.sleep(0.5)
            rows[name] = _row(pings(agent, seconds))
            for client in clients:
                client.kill()
                client.join()
            say(f"{name}: {rows[name]}")
            time.sleep(1)
        longest = max(row["longestMilliseconds"] for row in rows.values())
        return {"longestMilliseconds": longest, "limitMilliseconds": LIMIT, "clients": rows}
    finally:
        agent.close()


def _row(taken: Sequence[Ping]) -> dict[str, Any]:
    held = [one.held for one in taken]
    figures = {
        "p50Milliseconds": np.percentile(held, 50),
        "p99Milliseconds": np.percentile(held, 99),
        "longestMilliseconds": max(held),
        "longestRunMilliseconds": max(one.ran for one in taken),
    }
    return {"pings": len(taken), **{name: round(float(value), 2) for name, value in figures.items()}}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where something held the loop up for longer than the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seconds of each instead of ten")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="edgewright-stall-") as folder:
        try:
            result = measure(2.0 if arguments.quick else 10.0, Path(folder))
        except Unavailable as error:
            say(f"bench/stall.py: {error}")
            return 1
    print(f"{'clients':>20}  {'pings':>6}  {'p50 ms':>7}  {'p99 ms':>7}  {'longest':>7}  longest run")
    for name, row in result["clients"].items():
        figures = "  ".join(f"{row[key]:>7}" for key in list(row)[1:])
        print(f"{name:>20}  {row['pings']:>6}  {figures}")
    if arguments.quick:
        print("Left out by --quick: eight of ten seconds with each kind of client.")
    deliver(result, arguments.out, as_json=arguments.json)
    return 1 if result["longestMilliseconds"] > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
