"""A real operator process: waves, kills at moments of a rollout, a veto, Nodes that go, wrong settings."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgewright_contract import names
from edgewright_local.control_plane import ControlPlane

NODES = 3
TRUST = "sha256:" + "7" * 64
Start = Callable[..., subprocess.Popen[bytes]]


def manifest(version: int) -> str:
    return f"sha256:{version:064x}"


def test_a_release_reaches_all_nodes_in_two_waves(
    site: Any,
    start: Start,
    source: Any,
    until: Callable[..., Any],
    joins: Callable[..., None],
    finishes: Callable[..., None],
    tmp_path: Path,
) -> None:
    (tmp_path / "login").write_text("of-mlflow\n")
    start(MLFLOW_TOKEN_FILE=str(tmp_path / "login"))
    joins(site, until)
    until(lambda: site.assigned())
    time.sleep(1.5)  # several rounds: nobody else is exposed while the first node is silent
    assert len(site.assigned()) == 1
    for name, node in site.edge_nodes().items():
        assert [owner["uid"] for owner in node["metadata"]["ownerReferences"]] == [site.uids[name]]
        assert node["metadata"]["labels"]["site"] == site.name
    site.obey()
    until(lambda: site.condition("Reconciling") == ("True", "Soaking"))
    assert len(site.assigned()) == 1
    finishes(site, until, 1)
    spec = next(iter(site.edge_nodes().values()))["spec"]
    assert spec["trust"] == TRUST
    assert spec["models"][0]["live"]["variant"] == "q"
    assert source.tokens == {"Bearer of-the-operator"}
    assert source.logins == {"Bearer of-mlflow"}
    assert not any(node["metadata"].get("managedFields") for node in site.edge_nodes().values())  # half of the object


@pytest.mark.parametrize("moment", ["exposed", "soaking", "second wave"])
def test_an_operator_killed_in_mid_rollout_ends_in_the_same_state(
    site: Any,
    start: Start,
    until: Callable[..., Any],
    joins: Callable[..., None],
    finishes: Callable[..., None],
    moment: str,
) -> None:
    first = start()
    joins(site, until)
    until(lambda: site.assigned())
    if moment != "exposed":
        site.obey()
        until(lambda: site.condition("Reconciling") == ("True", "Soaking"))
    if moment == "second wave":
        until(lambda: len(site.assigned()) > 1)
    first.kill()
    first.wait(10)
    before = site.assigned()
    site.obey()
    second = start()
    finishes(site, until, 1)
    assert before.items() <= site.assigned().items()
    assert second.poll() is None


def test_a_veto_sends_the_exposed_back_and_a_restart_does_not_forget(
    site: Any,
    start: Start,
    source: Any,
    until: Callable[..., Any],
    joins: Callable[..., None],
    finishes: Callable[..., None],
) -> None:
    first = start()
    joins(site, until)
    finishes(site, until, 1)
    source.version = 2
    until(lambda: 2 in site.assigned().values())
    assert list(site.assigned().values()).count(2) == 1

    def condemned() -> bool:
        site.obey(refused=2)  # one veto asks a second node, two are enough
        return bool((site.model().get("quarantined") or [{}])[0].get("manifest") == manifest(2))

    until(condemned)
    first.kill()
    first.wait(10)
    start()
    until(lambda: set(site.assigned().values()) == {1})
    site.obey()
    until(lambda: site.condition("Stalled") == ("True", "Quarantined"))
    time.sleep(1.5)  # several rounds: the alias still names version 2
    assert set(site.assigned().values()) == {1}
    assert site.model()["lastGood"]["version"] == 1


def test_a_node_that_goes_takes_its_edge_node_along_and_a_new_one_starts_anew(
    control_plane: ControlPlane, site: Any, start: Start, until: Callable[..., Any]
) -> None:
    start()
    until(lambda: len(site.edge_nodes()) == NODES)
    gone, path = site.nodes[0], f"/api/v1/nodes/{site.nodes[0]}"
    site.api.request("DELETE", path)
    until(lambda: gone not in site.edge_nodes())
    uid = control_plane.create_node(gone, {names.LABEL_AGENT: "true", "site": site.name})["metadata"]["uid"]
    made = until(lambda: site.edge_nodes().get(gone))
    assert made["metadata"]["ownerReferences"][0]["uid"] == uid
    for value in (None, "true"):  # unlabelled and labelled again
        label = {"metadata": {"labels": {names.LABEL_AGENT: value}}}
        site.api.request("PATCH", path, json=label, headers={"Content-Type": "application/merge-patch+json"})
        until(lambda there=value is not None: (gone in site.edge_nodes()) == there)


def test_wrong_settings_end_with_a_sentence_that_names_the_variable() -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("EDGEWRIGHT_")}
    ended = subprocess.run(
        [sys.executable, "-m", "edgewright_operator.main"], env=clean, capture_output=True, text=True, timeout=30
    )
    assert ended.returncode != 0
    assert "EDGEWRIGHT_OPERATOR_MLFLOW_URL" in ended.stderr
    assert "Traceback" not in ended.stderr
