"""A stream that drifts away from what the release was validated on moves the figures of a real server process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright_agent import drift
from edgewright_contract import release as r

WINDOW, START = 64, 1_700_000_000


def _reference() -> r.Reference:
    """Of windows from 0 to 400 W: the model is sure of either side and unsure in the middle, at 100 W."""
    watts = np.random.default_rng(1).uniform(0, 400, 1000)
    logits = np.stack([2 - watts / 100, watts / 100, 0 * watts], 1)
    sure = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).max(1)
    spread = [
        r.Histogram(edges=edges, counts=np.histogram(values, [-np.inf, *edges, np.inf])[0].tolist())
        for values, edges in ((sure, np.quantile(sure, [0.25, 0.5, 0.75]).tolist()), (watts, [100.0, 200.0, 300.0]))
    ]
    unknown = float(np.mean(sure < 0.5))
    return r.Reference(windows=1000, threshold=0.5, unknown_ratio=unknown, confidence=spread[0], mean_watts=spread[1])


@pytest.fixture
def push(server: Any) -> Callable[[list[float]], None]:
    """Push whole windows of these watts, one after the other."""
    seconds: Iterator[int] = iter(range(START, START + 10**6))

    def pushed(levels: list[float]) -> None:
        readings = [{"t": next(seconds), "watts": level} for level in levels for _ in range(WINDOW)]
        for start in range(0, len(readings), 4_000):
            answer = server.http.post("/v1/readings", json={"readings": readings[start : start + 4_000]})
            assert answer.status_code == 200, answer.text

    return pushed


def _spread(server: Any) -> dict[str, Any]:
    return server.ask({"op": "figures"})["models"]["home/nilm"]["spread"]


def _drift(server: Any) -> float | None:
    told = _spread(server)
    return drift.farthest(told["expected"], told["found"])


def test_a_drifted_stream_moves_the_figure_and_a_usual_one_does_not(
    server: Any, push: Callable[[list[float]], None], write_release: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    server.go_live(write_release(tmp_path / "one", 1, 2.0, _reference()))
    rng = np.random.default_rng(2)
    push(rng.uniform(0, 400, 20).tolist())
    assert _drift(server) is None, "twenty windows say nothing"
    assert "edgewright_drift_score{" not in server.http.get("/metrics").text
    push(rng.uniform(0, 400, 100).tolist())
    usual = _drift(server)
    assert usual is not None
    assert usual < 0.1
    assert sum(_spread(server)["found"]["confidence"]) == pytest.approx(120, abs=1)

    server.go_live(write_release(tmp_path / "two", 2, 2.0, _reference()))
    assert sum(_spread(server)["found"]["confidence"]) == 0, "another release begins anew"
    push(rng.uniform(90, 110, 60).tolist())
    drifted = _drift(server)
    assert drifted is not None
    assert drifted > 1
    assert _spread(server)["unknown"] > 40
    text = server.http.get("/metrics").text
    assert 'edgewright_drift_score{model="nilm",of="confidence"}' in text
    assert 'edgewright_drift_score{model="nilm",of="meanWatts"}' in text
    (ratio,) = [line for line in text.splitlines() if line.startswith('edgewright_unknown_ratio{model="nilm"}')]
    assert float(ratio.split()[1]) > 0.7
    (shown,) = server.http.get("/v1/snapshot").json()["models"]
    assert shown["drift"] == pytest.approx(drifted)
    assert shown["unknownRatio"] == float(ratio.split()[1])
    assert server.ask({"op": "unload", "model": "home/nilm"}) == {"ok": True}
    assert 'model="nilm"' not in server.http.get("/metrics").text


def test_requests_do_not_count_and_the_shadow_does(
    server: Any, push: Callable[[list[float]], None], write_release: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    server.go_live(write_release(tmp_path / "one", 1, 2.0, _reference()))
    body = {"inputs": [{"name": "watts", "datatype": "FP32", "shape": [1, 1, WINDOW], "data": [9000.0] * WINDOW}]}
    for _ in range(50):
        assert server.http.post("/v2/models/nilm/infer", json=body).status_code == 200
    assert sum(_spread(server)["found"]["confidence"]) == 0
    assert server.ask(write_release(tmp_path / "two", 2, 2.0, _reference())) == {"ok": True}
    push([50.0] * 10)
    assert sum(_spread(server)["found"]["meanWatts"]) >= 8, "the figures are the shadow's while there is one"
