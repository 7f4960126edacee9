"""Every query of every dashboard gives samples: of real processes, those about gates or rollbacks of played ones."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prometheus_client
import pytest

from edgewright_contract.compressedmodel import (
    CompressedModelSpec,
    CompressedModelStatus,
    GateCheck,
    GateStatus,
    Source,
    Verdict,
)
from edgewright_local.binaries import Binary
from edgewright_local.ports import free_ports
from edgewright_local.prometheus_server import PrometheusServer, ScrapeTarget
from edgewright_operator import metrics
from edgewright_operator.decide import Decision
from edgewright_operator.facts import ModelFacts

_BOARDS = Path(__file__).parents[3] / "deploy" / "k8s" / "monitoring" / "dashboards"
_RARE = ("edgewright_gate_value", "edgewright_gate_limit", "edgewright_rollbacks_total")


def _panels(board: Path) -> list[dict[str, Any]]:
    return [panel for panel in json.loads(board.read_text())["panels"] if panel["type"] != "row"]


def _queries() -> list[tuple[str, str]]:
    """Panel's title and expression, the variables filled in as Grafana does for "All"."""
    found = []
    for board in sorted(_BOARDS.glob("*.json")):
        for panel in _panels(board):
            for target in panel["targets"]:
                filled = re.sub(r"\$(model|instance)\b", ".*", target["expr"]).replace("$__rate_interval", "10s")
                found.append((f"{board.stem}: {panel['title']} {target['refId']}", filled))
    return found


def _named(rare: bool) -> list[Any]:
    chosen = [(title, query) for title, query in _queries() if any(name in query for name in _RARE) is rare]
    return [pytest.param(query, id=title) for title, query in chosen]


@pytest.mark.parametrize("query", _named(rare=False))
def test_a_query_gives_samples_of_real_processes(query: str, scraped: Any) -> None:
    assert "$" not in query
    assert any(not math.isnan(sample.value) for sample in scraped.prometheus.wait_for(query, 30))


@pytest.fixture(scope="module")
def played(run_directory: Path, every_binary: dict[Binary, Path]) -> Iterator[PrometheusServer]:
    """The operator's own metrics, given a failed gate and a rollback."""
    spec = CompressedModelSpec(source=Source(registered_model="nilm", version=1))
    model = ModelFacts("site", "played", 1, {}, spec, CompressedModelStatus())
    check = GateCheck(name="p95Ratio", value=1.5, limit=1.2, samples=300, verdict=Verdict.FAIL)
    metrics.decided(model, Decision(CompressedModelStatus(gate=GateStatus(verdict=Verdict.FAIL, checks=[check]))))
    metrics.ROLLBACKS.labels("GateFailed").inc()
    (port,) = free_ports(1)
    server, thread = prometheus_client.start_http_server(port, addr="127.0.0.1")
    targets = [ScrapeTarget("played", [f"127.0.0.1:{port}"])]
    prometheus = PrometheusServer.start(run_directory / "played", every_binary, targets, scrape_seconds=0.5)
    yield prometheus
    prometheus.stop()
    server.shutdown()
    server.server_close()
    thread.join()
    metrics.forgotten(model.key)


@pytest.mark.parametrize("query", _named(rare=True))
def test_a_query_about_gates_gives_samples_of_played_ones(query: str, played: PrometheusServer) -> None:
    assert any(sample.value > 0 for sample in played.wait_for(query, 30))


def test_a_query_of_an_unknown_metric_would_be_noticed(scraped: Any) -> None:
    assert scraped.prometheus.query("sum(edgewright_no_such_metric)") == []


def test_what_is_shown_is_what_runs(scraped: Any) -> None:
    live = scraped.prometheus.wait_for(f'edgewright_nodes{{model="{scraped.model}", state!="offline"}} > 0')
    assert sum(sample.value for sample in live) == 1
    age = scraped.prometheus.wait_for(f'edgewright_node_heartbeat_age_seconds{{node="{scraped.node}"}}')
    assert 0 <= age[0].value < 600
    (info,) = scraped.prometheus.wait_for("edgewright_model_info")
    assert (info.labels["release"], info.labels["variant"]) == ("1", "base-fp32")


def test_every_panel_says_what_it_means_and_reads_from_the_chosen_source() -> None:
    for board in _BOARDS.glob("*.json"):
        document = json.loads(board.read_text())
        assert document["uid"] == board.stem
        variables = {entry["name"]: entry for entry in document["templating"]["list"]}
        assert variables.pop("datasource")["type"] == "datasource"
        for name, variable in variables.items():
            assert variable["query"].endswith(f", {name})")
        for panel in _panels(board):
            assert panel["description"]
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["datasource"]["uid"] == "${datasource}"
