"""The whole site runs as its manifests, roles and policies say: with TLS, and nothing that it needs is refused."""

from __future__ import annotations

import re
import secrets
import time
from typing import Any

import httpx2
import pytest

from edgewright_contract import names


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
    deadline = time.monotonic() + 30
    while (status := scraped.plane.api.client.get(path).status_code) != wanted:
        assert time.monotonic() < deadline, f"{path} still answers {status}"
        time.sleep(0.2)
