"""`make demo ARGS="--exit --quick --json"` where no data can be had: one object, no score, nothing left behind."""

import json
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from edgewright_local.binaries import Binary
from edgewright_local.processes import still_running

NODES = ("edge-1", "edge-2", "edge-3")


@pytest.fixture
def empty_site(http_server: Callable[[type[BaseHTTPRequestHandler]], str]) -> str:
    """URL of a server that has no file."""

    class Nothing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

    return http_server(Nothing)


@pytest.mark.timeout(600)
def test_a_script_gets_one_object_without_data_no_score_and_nothing_is_left(
    clone: Any, empty_site: str, binaries: dict[Binary, Path]
) -> None:
    before = clone.files()
    running = clone.start("--exit", "--quick", "--json", EDGEWRIGHT_DATA_URL=f"{empty_site}/tracebase.tar.gz")
    try:
        written, said = running.communicate(timeout=500)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 0, said
    assert "the data could not be fetched: going on with made-up traces, and without any score" in said
    assert "answered 404" in said  # why
    assert "MADE-UP DATA" in said
    assert "Left out by --quick: the release that answers wrong" in said
    told = json.loads(written.splitlines()[-1])
    assert told.keys() == {"nodes", "variants", "requests", "seconds"}
    assert {tuple(sorted(node)) for node in told["nodes"]} == {
        ("hardwareClass", "name", "p95Milliseconds", "release", "state", "variant")
    }
    assert [(node["name"], node["release"], node["state"]) for node in told["nodes"]] == [
        (name, 2, "Live") for name in NODES
    ]
    assert {tuple(sorted(row)) for row in told["variants"]} == {("bytes", "macroF1", "name", "p50Microseconds")}
    assert {row["macroF1"] for row in told["variants"]} == {None}
    assert not re.search(r"F1[ =:]*0\.\d", written + said)
    assert told["requests"].keys() == {"sent", "failed"}
    assert (told["requests"]["sent"] > 100, told["requests"]["failed"]) == (True, 0)
    assert still_running(clone.workspace) == []
    assert {file for file in clone.files() - before if not file.startswith("clone/data/tracebase/")} == set()
