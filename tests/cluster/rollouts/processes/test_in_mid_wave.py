"""What changes in mid-wave, each with a real operator: the rollout ends as if it had been so from the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgewright_contract import names

Start = Callable[..., Any]
MERGE = {"Content-Type": "application/merge-patch+json"}


def _standing(site: Any) -> dict[str, Any]:
    """What the rollout came to, without its times."""
    status = site.model()
    return {
        "ready": site.condition("Ready"),
        "good": (status.get("lastGood") or {}).get("version"),
        "counts": {key: status["counts"][key] for key in ("total", "live")},
        "wave": {key: status["wave"][key] for key in ("size", "exposed")},
        "quarantined": status.get("quarantined") or [],
        "nodes": {
            name: (row["live"]["version"], row["live"]["variant"])
            for name, node in site.edge_nodes().items()
            for row in node["spec"].get("models") or []
        },
    }


def _straight(site: Any, version: int, variant: str) -> dict[str, Any]:
    """What it comes to where nothing changes on the way."""
    count = len(site.nodes)
    return {
        "ready": ("True", "RolledOut"),
        "good": version,
        "counts": {"total": count, "live": count},
        "wave": {"size": count, "exposed": count},
        "quarantined": [],
        "nodes": dict.fromkeys(site.nodes, (version, variant)),
    }


def _ends(site: Any, until: Callable[..., Any], version: int, variant: str) -> None:
    def settled() -> bool:
        site.obey()
        return "counts" in site.model() and _standing(site) == _straight(site, version, variant)

    until(settled, 60)


def _events(site: Any) -> list[dict[str, Any]]:
    return list(site.api.request("GET", f"/api/v1/namespaces/{site.name}/events")["items"])


@pytest.fixture
def one_exposed(site: Any, start: Start, until: Callable[..., Any], joins: Callable[..., None]) -> str:
    """The first wave is under way: its one node has version 1 and has not answered yet."""
    start()
    joins(site, until)
    (canary,) = until(lambda: site.assigned())
    return str(canary)


def test_spec_edited(site: Any, until: Callable[..., Any], one_exposed: str) -> None:
    site.wish({"waves": [{"nodes": 2}, {"percent": 50}, {"percent": 100}]}, selection={"variant": "f"})
    _ends(site, until, 1, "f")
    assert site.model()["wave"]["of"] == 3


def test_alias_moved(site: Any, source: Any, until: Callable[..., Any], one_exposed: str) -> None:
    source.version = 2
    until(lambda: 2 in site.assigned().values())
    assert site.assigned() == {one_exposed: 2}  # who has what was abandoned goes first
    _ends(site, until, 2, "q")
    told = [(entry["version"], entry["outcome"]) for entry in site.model()["history"]]
    assert told == [(2, "Promoted"), (1, "Superseded")]


@pytest.mark.parametrize("policy", ["Retain", "Remove"])
def test_object_deleted(site: Any, until: Callable[..., Any], one_exposed: str, policy: str) -> None:
    site.obey()
    site.wish(deletionPolicy=policy)
    removed = True if policy == "Remove" else None

    def entries() -> dict[str, dict[str, Any]]:
        return {name: row for name, node in site.edge_nodes().items() for row in node["spec"].get("models") or []}

    until(lambda: entries()[one_exposed].get("removedWithModel") == removed)
    had = set(entries())
    site.api.request("DELETE", f"/apis/{names.API_VERSION}/namespaces/{site.name}/{names.COMPRESSED_MODELS}/nilm")
    if policy == "Remove":
        until(lambda: entries() == {})
    else:
        until(lambda: all(row.get("orphaned") for row in entries().values()))
        assert entries().keys() >= had
        until(lambda: "Orphaned" in {event["reason"] for event in _events(site)})  # it is written after the entries
    site.wish(deletionPolicy=policy)  # made anew, it goes all the way
    _ends(site, until, 1, "q")


def test_nodes_added_and_removed(
    site: Any, until: Callable[..., Any], awakens: Callable[..., None], one_exposed: str
) -> None:
    site.remove_node(one_exposed)  # the canary itself
    added = [site.add_node(), site.add_node()]
    awakens(site, until)
    until(lambda: site.assigned().keys() - {one_exposed})
    assert len(site.assigned()) == 1  # another canary, and no more than that
    _ends(site, until, 1, "q")
    assert set(added) <= site.assigned().keys()


def test_a_node_made_anew_under_its_old_name(
    site: Any, until: Callable[..., Any], awakens: Callable[..., None], one_exposed: str
) -> None:
    site.obey()
    before = site.edge_nodes()[one_exposed]["metadata"]["uid"]
    site.remove_node(one_exposed)
    site.add_node(one_exposed)  # at once: the operator may see no gap between the two
    until(lambda: site.edge_nodes().get(one_exposed, {}).get("metadata", {}).get("uid", before) != before)
    awakens(site, until)
    _ends(site, until, 1, "q")


def test_the_reach_of_the_namespace_narrows(site: Any, until: Callable[..., Any], one_exposed: str) -> None:
    """An entry outside of it loses the model, and the rest goes on; without the annotation nothing is selected."""
    site.obey()
    for node in site.nodes:
        place = "here" if node != one_exposed else "elsewhere"
        site.api.request(
            "PATCH", f"/api/v1/nodes/{node}", json={"metadata": {"labels": {"place": place}}}, headers=MERGE
        )
    site.reach(f"site={site.name},place=here")
    until(lambda: one_exposed not in site.assigned())

    def rest_is_done() -> bool:
        site.obey()
        good = site.condition("Ready") == ("True", "RolledOut")
        return good and site.assigned() == dict.fromkeys(set(site.nodes) - {one_exposed}, 1)

    until(rest_is_done)
    site.reach(None)
    until(lambda: site.assigned() == {})
    until(lambda: site.condition("Ready") == ("False", "NoNodes"))
    site.reach(f"site={site.name}")
    _ends(site, until, 1, "q")
