"""`make demo` as a person runs it, on a small recipe and made-up traces in Tracebase's own form."""

import json
import signal
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest

from edgewright_local.binaries import Binary
from edgewright_local.processes import still_running
from edgewright_local.prometheus_server import PrometheusServer, ScrapeTarget
from edgewright_local.traffic import Traffic

NODES = ("edge-1", "edge-2", "edge-3")


@pytest.mark.timeout(600)
def test_the_demo_rolls_out_and_swaps_without_a_failed_request_and_leaves_nothing(
    clone: Any, tracebase_folder: Path, every_binary: dict[Binary, Path], dashboard_queries: list[str]
) -> None:
    # without --exit: as a person runs it, who looks and presses Ctrl-C
    running = clone.start("--json", TRACEBASE_DIR=str(tracebase_folder))
    try:
        assert running.stdout is not None
        while not (line := running.stdout.readline()).startswith("{"):
            assert line or running.poll() is None, running.stderr.read() if running.stderr else ""
        summary = json.loads((clone.workspace / "demo/summary.json").read_text())
        for shown, seen in zip(json.loads(line)["nodes"], summary["nodes"], strict=True):
            assert shown.items() <= seen.items()
        pages = [summary["urls"][name] for name in NODES]
        assert all("<html" in httpx2.get(page).text for page in pages)
        assert all("edgewright_inference_seconds" in httpx2.get(f"{page}/metrics").text for page in pages)
        assert httpx2.get(summary["urls"]["mlflow"]).status_code == 200
        prometheus = clone.workspace / "prometheus"
        assert _without_samples(dashboard_queries, summary["urls"], prometheus, every_binary) == []
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 0
    assert [node["state"] for node in summary["nodes"]] == ["Live"] * 3
    assert {node["release"] for node in summary["nodes"]} == {2}
    made = {row["name"]: row for row in summary["variants"]}
    assert all(node["variant"] in made and node["hardwareClass"] for node in summary["nodes"])
    assert all(node["bytes"] == made[node["variant"]]["bytes"] for node in summary["nodes"])  # as published, as trained
    assert all(node["p95Milliseconds"] > 0 for node in summary["nodes"])
    assert all(0 <= row["macroF1"] <= 1 for row in made.values())
    contained = summary["containment"]
    assert contained["version"] == 3
    assert 1 <= len(contained["exposedNodes"]) <= 2  # one canary, and one more that is asked in its place
    assert any(contained["manifest"].removeprefix("sha256:")[:8] in line for line in contained["why"])
    assert summary["requests"]["sent"] > 100
    assert summary["requests"]["failed"] == 0, summary["requests"]["lastError"]
    assert still_running(clone.workspace) == []
    assert not any(_listens(page) for page in pages)


def test_a_demo_whose_starter_was_killed_is_ended_by_stop(
    clone: Any, tracebase_folder: Path, binaries: dict[Binary, Path]
) -> None:
    running = clone.start(TRACEBASE_DIR=str(tracebase_folder))
    try:
        deadline = time.monotonic() + 60
        while not still_running(clone.workspace):
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        running.kill()
        running.communicate()
    assert still_running(clone.workspace)
    ending = clone.start("--stop")
    said, _ = ending.communicate(timeout=60)
    assert said.startswith("ended ")
    assert still_running(clone.workspace) == []


def test_a_second_demo_is_refused_and_stop_ends_the_first_with_its_starter(
    clone: Any, tracebase_folder: Path, binaries: dict[Binary, Path]
) -> None:
    running = clone.start(TRACEBASE_DIR=str(tracebase_folder))
    try:
        deadline = time.monotonic() + 60
        while not still_running(clone.workspace):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        second = clone.start()
        _, said = second.communicate(timeout=60)
        assert second.returncode == 1
        assert f"a demo runs in this folder already (process {running.pid})" in said
        assert still_running(clone.workspace), "the first one goes on"
        ending = clone.start("--stop")
        told, _ = ending.communicate(timeout=90)
        assert f"the demo of process {running.pid}" in told
        running.communicate(timeout=30)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 130
    assert still_running(clone.workspace) == []
    ending = clone.start("--stop")
    assert ending.communicate(timeout=60)[0] == "no demo is running here\n"


def _without_samples(
    queries: list[str], urls: dict[str, str], folder: Path, every_binary: dict[Binary, Path]
) -> list[str]:
    """The queries that a Prometheus which scrapes the running demo answers with nothing."""
    parts = {"agent": NODES, "operator": ("operator",), "gateway": ("gateway",)}
    places = {**urls, "operator": urls["operator metrics"].removesuffix("/metrics")}
    targets = [ScrapeTarget(job, [urlsplit(places[name]).netloc for name in them]) for job, them in parts.items()]
    load = Traffic({node: urls[node] for node in NODES}, "nilm", np.full((4, 256), 90, np.uint16))
    prometheus = PrometheusServer.start(folder, every_binary, targets, scrape_seconds=0.5)
    load.start()
    now = int(time.time())
    readings = {"readings": [{"t": now + second, "watts": 90} for second in range(600)]}  # one window and more
    try:
        for node in NODES:
            httpx2.post(f"{urls[node]}/v1/readings", json=readings).raise_for_status()
        return [query for query in queries if not _answered(prometheus, query)]
    finally:
        load.stop()
        prometheus.stop()


def _answered(prometheus: PrometheusServer, query: str) -> bool:
    """Whether there is a sample; a share of nothing (no node runs the release that was stopped) may be no number."""
    deadline = time.monotonic() + 20
    while not (found := prometheus.query(query)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return bool(found)


def _listens(page: str) -> bool:
    try:
        httpx2.get(page, timeout=2)
    except httpx2.HTTPError:
        return False
    return True
