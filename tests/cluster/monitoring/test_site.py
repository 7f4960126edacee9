"""The whole site runs on the shipped roles and policies: nothing that its processes ask for is refused."""

from __future__ import annotations

import re
import secrets
import time
from typing import Any

from edgewright_contract import names


def test_nobody_is_refused_what_it_needs(scraped: Any) -> None:
    logs = {log.name: log.read_text() for log in scraped.folder.rglob("*.log")}
    assert {"operator.log", "gateway.log", f"agent-{scraped.node}.log"} <= logs.keys()
    refusals = {name: line for name, text in logs.items() for line in text.splitlines() if _refused(line)}
    assert refusals == {}


def _refused(line: str) -> bool:
    return re.search(r"\b(401|403)\b|[Ff]orbidden|cannot (get|list|watch|create|update|patch|delete)", line) is not None


def test_a_refusal_would_be_seen() -> None:
    assert _refused('PATCH /x: 403 edgenodes "n" is forbidden: User "u" cannot patch resource "edgenodes"')
    assert not _refused("2026-11-24 14:03:40 serving on 127.0.0.1 port 40100")


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
