"""Twice the load that the agent's server can bear: what is refused, what is answered, how long health takes."""

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
from serving_peers.ours import Agent
from serving_peers.servers import Door, load, pin_this

CONNECTIONS = 128


def measure(client: Path, door: Door, agent: Agent, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Peak in a closed loop of 8 connections, then a schedule of twice that rate over 128."""
    say("overload: the peak")
    peaks = [load(client, door, folder, connections=8, seconds=1.0) for _ in range(3)]
    peak = statistics.median(item["statuses"]["200"] / item["seconds"] for item in peaks)
    say(f"overload: twice {peak:.0f} a second")
    health: list[float] = []
    stop = threading.Event()
    asking = threading.Thread(target=_ask_health, args=(agent.port, stop, health))
    asking.start()
    result = load(client, door, folder, connections=CONNECTIONS, seconds=5.0, rate=2 * peak)
    stop.set()
    asking.join(10)
    statuses = result["statuses"]
    good = statuses.get("200", 0) / result["seconds"]
    return {
        "peakPerSecond": round(peak),
        "offeredPerSecond": round(2 * peak),
        "goodputShare": round(good / peak, 3),
        "statuses": statuses,
        "broken": result["broken"],
        "p99MicrosecondsSinceScheduled": result["p99"],
        "healthWorstMilliseconds": round(max(health) * 1e3, 1),
        "healthChecks": len(health),
    }


def _ask_health(port: int, stop: threading.Event, taken: list[float]) -> None:
    pin_this()
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as client:
        while not stop.is_set():
            start = time.perf_counter()
            client.get("/v2/health/live").raise_for_status()
            taken.append(time.perf_counter() - start)
            time.sleep(0.05)
