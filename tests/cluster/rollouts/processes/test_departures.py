"""What becomes of nodes that are no longer selected, or whose CompressedModel goes, with a real operator."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from edgewright_contract import names

Start = Callable[..., Any]
MERGE = {"Content-Type": "application/merge-patch+json"}


def _entries(site: Any) -> dict[str, list[dict[str, Any]]]:
    return {name: node["spec"].get("models") or [] for name, node in site.edge_nodes().items()}


def _path(site: Any) -> str:
    return f"/apis/{names.API_VERSION}/namespaces/{site.name}/{names.COMPRESSED_MODELS}/nilm"


@pytest.mark.parametrize("policy", ["Retain", "Remove"])
def test_an_object_deleted_while_nobody_acts_is_tidied_up_after(
    site: Any,
    start: Start,
    until: Callable[..., Any],
    joins: Callable[..., None],
    finishes: Callable[..., None],
    policy: str,
) -> None:
    first = start()
    joins(site, until)
    site.api.request("PATCH", _path(site), json={"spec": {"deletionPolicy": policy}}, headers=MERGE)
    finishes(site, until, 1)
    wanted = True if policy == "Remove" else None
    until(lambda: all(rows[0].get("removedWithModel") == wanted for rows in _entries(site).values()))
    first.kill()
    first.wait(10)
    site.api.request("DELETE", _path(site))  # at once: there is no finalizer
    assert site.api.request("GET", _path(site).rsplit("/", 1)[0])["items"] == []
    start()
    if policy == "Remove":
        until(lambda: not any(_entries(site).values()))
        return
    until(lambda: all(rows[0].get("orphaned") for rows in _entries(site).values()))
    assert set(site.assigned().values()) == {1}
    site.wish()  # made anew, it takes them up again
    until(lambda: not any(rows[0].get("orphaned") for rows in _entries(site).values()))
    assert set(site.assigned().values()) == {1}


def test_a_node_that_is_no_longer_selected_loses_the_model_and_gets_it_back(
    site: Any,
    start: Start,
    until: Callable[..., Any],
    joins: Callable[..., None],
    finishes: Callable[..., None],
) -> None:
    start()
    joins(site, until)
    finishes(site, until, 1)
    node = f"/api/v1/nodes/{site.nodes[0]}"
    site.api.request("PATCH", node, json={"metadata": {"labels": {"site": "elsewhere"}}}, headers=MERGE)
    until(lambda: _entries(site)[site.nodes[0]] == [])
    until(lambda: (site.model().get("counts") or {}).get("total") == 2)
    site.api.request("PATCH", node, json={"metadata": {"labels": {"site": site.name}}}, headers=MERGE)
    until(lambda: site.assigned().get(site.nodes[0]) == 1)


def test_approval_is_waited_for_at_each_wave(
    site: Any, start: Start, until: Callable[..., Any], joins: Callable[..., None]
) -> None:
    start()
    joins(site, until)
    site.api.request("PATCH", _path(site), json={"spec": {"rollout": {"approval": True}}}, headers=MERGE)
    site.api.request("PATCH", _path(site), json={"spec": {"suspend": False}}, headers=MERGE)
    until(lambda: site.condition("Reconciling") == ("True", "WaitingForApproval"))
    held = len(site.assigned())  # the first wave may have begun before approval was asked for
    for wave in (0, 1) if held == 0 else (1,):
        found = site.api.request("GET", _path(site))
        value = f"{site.model()['release']['manifest']}/{wave}/{found['metadata']['generation']}"
        annotation = {"metadata": {"annotations": {names.ANNOTATION_APPROVE: value}}}
        site.api.request("PATCH", _path(site), json=annotation, headers=MERGE)
        until(lambda size=(1, 3)[wave]: len(site.assigned()) == size)
        if wave == 0:
            site.obey()
            until(lambda: site.condition("Reconciling") == ("True", "WaitingForApproval"))
            time.sleep(1)
            assert len(site.assigned()) == 1
