"""The whole site as its manifests, roles and policies start it: every query gives samples, every alert its due.

The tests stand in the order of events: a healthy site first, then a release that its node refuses.
"""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from edgewright_contract import names


def test_a_healthy_site_raises_no_alert(scraped: Any) -> None:
    """The rules run on the real series for a while; pending ones count too."""
    scraped.prometheus.wait_for("sum(rate(edgewright_inference_seconds_count[5s])) > 0", 30)
    scraped.prometheus.wait_for("count(up == 1) == 3", 30)
    time.sleep(2)
    assert scraped.prometheus.query("ALERTS") == []


def _numbers(scraped: Any, query: str) -> list[float]:
    return [sample.value for sample in scraped.prometheus.wait_for(query, 30) if not math.isnan(sample.value)]


def test_a_query_gives_samples(dashboard_query: str, scraped: Any) -> None:
    assert "$" not in dashboard_query
    assert _numbers(scraped, dashboard_query)


def test_a_query_of_an_unknown_metric_would_be_noticed(scraped: Any) -> None:
    assert scraped.prometheus.query("sum(edgewright_no_such_metric)") == []


def test_what_is_shown_is_what_runs(scraped: Any) -> None:
    shown = scraped.prometheus.wait_for(f'edgewright_nodes{{model="{scraped.model}", state!="offline"}} > 0')
    assert sum(sample.value for sample in shown) == 1
    age = scraped.prometheus.wait_for(f'edgewright_node_heartbeat_age_seconds{{node="{scraped.node}"}}')
    assert 0 <= age[0].value < 600
    (info,) = scraped.prometheus.wait_for("edgewright_model_info")
    assert (info.labels["release"], info.labels["variant"]) == ("1", "base-fp32")


def test_nobody_is_refused_what_it_needs(scraped: Any) -> None:
    logs = {log.name: log.read_text() for log in scraped.folder.rglob("*.log")}
    assert {"operator.log", "gateway.log", "agent.log"} <= logs.keys()
    refusals = {name: line for name, text in logs.items() for line in text.splitlines() if _refused(line)}
    assert refusals == {}


def _refused(line: str) -> bool:
    return re.search(r"\b(401|403)\b|[Ff]orbidden|cannot (get|list|watch|create|update|patch|delete)", line) is not None


def test_a_refusal_would_be_seen() -> None:
    assert _refused('PATCH /x: 403 edgenodes "n" is forbidden: User "u" cannot patch resource "edgenodes"')
    assert not _refused("2026-11-24 14:03:40 serving on 127.0.0.1 port 40100")


@pytest.mark.parametrize("part", ["operator", "gateway", "agent"])
def test_it_runs_as_in_its_pod(part: str, scraped: Any, confinement: tuple[str, ...]) -> None:
    """Nobody's user, no capabilities, a root that cannot be written: all the tests of this file ran so."""
    if not confinement:
        pytest.skip("this machine does not let us make user namespaces")
    process = Path("/proc") / str(scraped.pids[part])
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    assert int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert (process / "uid_map").read_text().split()[0] == "65532"
    (root,) = [line.split() for line in (process / "mountinfo").read_text().splitlines() if line.split()[4] == "/"]
    assert "ro" in root[5].split(",")


def test_the_gateway_speaks_tls_only_and_the_operator_asked_it(scraped: Any) -> None:
    plain = scraped.gateway_url.replace("https:", "http:")
    with pytest.raises(httpx2.TransportError):
        httpx2.get(f"{plain}/healthz", trust_env=False)
    with pytest.raises(httpx2.TransportError):  # an authority that the system does not know
        httpx2.get(f"{scraped.gateway_url}/healthz", trust_env=False)
    asked = scraped.prometheus.wait_for('edgewright_gateway_requests_total{route="releases", code="200"}')
    assert asked[0].value >= 1


def test_a_node_that_comes_and_goes_takes_its_edge_node_along(scraped: Any) -> None:
    node = f"guest-{secrets.token_hex(3)}"
    scraped.plane.create_node(node, {names.LABEL_AGENT: "true"})
    path = f"/apis/{names.API_VERSION}/{names.EDGE_NODES}/{node}"
    _until_status(scraped, path, 200)
    scraped.plane.api.request("DELETE", f"/api/v1/nodes/{node}")
    _until_status(scraped, path, 404)


def _until_status(scraped: Any, path: str, wanted: int) -> None:
    _until(lambda: scraped.plane.api.client.get(path).status_code == wanted, lambda: path, 30)


def _status(scraped: Any) -> dict[str, Any]:
    namespace, _, name = scraped.model.partition("/")
    path = f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.COMPRESSED_MODELS}/{name}"
    return dict(scraped.plane.api.request("GET", path)["status"])


def _until(probe: Callable[[], Any], tell: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline, tell()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def refused(scraped: Any) -> Any:
    """The site after its node refused the second release, which answers otherwise than it states."""
    _until(lambda: "lastGood" in _status(scraped), lambda: _status(scraped))
    scraped.publish(False)
    scraped.prometheus.wait_for("edgewright_rollbacks_total > 0", 60)
    return scraped


def test_the_refused_release_is_quarantined_and_the_first_one_serves(refused: Any) -> None:
    assert len(_status(refused)["quarantined"]) == 1
    (serves,) = refused.prometheus.wait_for("edgewright_model_info")
    assert serves.labels["release"] == "1"


def test_the_alert_about_it_fires_on_the_real_series(refused: Any) -> None:
    fired = refused.prometheus.wait_for('ALERTS{alertname="EdgewrightRolledBack", alertstate="firing"}', 30)
    assert fired[0].labels["severity"] == "warning"


def test_a_query_about_rollbacks_gives_samples_now(rollback_query: str, refused: Any) -> None:
    assert max(_numbers(refused, rollback_query)) >= 1
