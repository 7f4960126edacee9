"""No data is never good news, with a real operator: it waits, then pauses; and checks of figures and of PromQL fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from typer.testing import CliRunner

from edgewright_cli import kubectl

Start = Callable[..., Any]
SOON = {"interval": "1s", "deadline": "4s"}


def _kubectl(site: Any, *arguments: str) -> None:
    where = ["-n", site.name, "--kubeconfig", str(site.plane.kubeconfig)]
    ended = CliRunner().invoke(kubectl.app, [*arguments, *where], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output


def _obeys(site: Any, probe: Callable[[], bool]) -> Callable[[], bool]:
    def probed() -> bool:
        site.obey()
        return probe()

    return probed


def _verdict(site: Any) -> str:
    return str((site.model().get("gate") or {}).get("verdict", ""))


def test_without_evidence_it_waits_pauses_and_goes_on_once_there_is_some(
    site: Any, start: Start, until: Callable[..., Any], joins: Callable[..., None], finishes: Callable[..., None]
) -> None:
    healthy, site.figures = site.figures, None
    start()
    joins(site, until, rollout={"soak": "0s", "gates": SOON})
    until(_obeys(site, lambda: site.condition("Stalled") == ("True", "GateInconclusive")))
    assert _verdict(site) == "Inconclusive"
    assert site.model()["paused"]["reason"] == "GateInconclusive"
    assert "lastGood" not in site.model()
    assert len(site.assigned()) == 1
    paused = site.model()["paused"]["since"]
    _kubectl(site, "resume", "nilm")
    until(_obeys(site, lambda: (site.model().get("paused") or {"since": paused})["since"] > paused))  # no data still
    site.figures = healthy
    site.obey()
    _kubectl(site, "resume", "nilm")
    finishes(site, until, 1)


def test_a_query_that_cannot_be_asked_pauses_and_one_over_its_limit_fails(
    site: Any,
    start: Start,
    source: Any,
    until: Callable[..., Any],
    joins: Callable[..., None],
    finishes: Callable[..., None],
) -> None:
    start(PROMETHEUS_URL=source.url)
    check = {"name": "complaints", "query": "sum(complaints)", "max": 1}
    joins(site, until, rollout={"soak": "0s", "gates": {**SOON, "prometheus": [check]}})
    until(_obeys(site, lambda: site.condition("Stalled") == ("True", "GateError")))
    assert _verdict(site) == "Error"
    assert len(site.assigned()) == 1
    source.metric = 0.5
    _kubectl(site, "resume", "nilm")
    finishes(site, until, 1)
    source.metric, source.version = 2.0, 2
    until(_obeys(site, lambda: bool(site.model().get("quarantined"))))
    assert [entry["reason"] for entry in site.model()["quarantined"]] == ["prometheus/complaints"]
    until(_obeys(site, lambda: set(site.assigned().values()) == {1}))


def test_nodes_that_are_slower_than_those_that_kept_the_old_release_fail_it(
    site: Any,
    start: Start,
    source: Any,
    until: Callable[..., Any],
    joins: Callable[..., None],
    finishes: Callable[..., None],
) -> None:
    """What each had before is not known to it: the third node, which still serves version 1, is the control."""
    start()
    joins(site, until, rollout={"waves": [{"nodes": 2}, {"percent": 100}], "gates": {"p95Floor": "1ms"}})
    site.figures = site.figures | {"p95Microseconds": 2000}
    finishes(site, until, 1)
    source.version = 2
    until(lambda: list(site.assigned().values()).count(2) == 2)
    control = next(name for name, version in site.assigned().items() if version == 1)
    site.odd = {name: {"p95Microseconds": 9000} for name in site.nodes if name != control}
    until(_obeys(site, lambda: bool(site.model().get("quarantined"))))
    assert [entry["reason"] for entry in site.model()["quarantined"]] == ["p95Ratio"]
    until(_obeys(site, lambda: set(site.assigned().values()) == {1}))


def test_a_release_that_was_freed_goes_out_anew_and_is_gone_back_from(
    site: Any,
    start: Start,
    source: Any,
    until: Callable[..., Any],
    joins: Callable[..., None],
    finishes: Callable[..., None],
) -> None:
    start()
    joins(site, until)
    finishes(site, until, 1)
    source.version = 2

    def refused() -> bool:
        site.obey(refused=2)
        return bool(site.condition("Stalled") == ("True", "Quarantined"))

    until(refused)
    _kubectl(site, "unquarantine", "nilm")
    until(_obeys(site, lambda: (site.model().get("lastGood") or {}).get("version") == 2))
    assert not site.model().get("quarantined")
    until(_obeys(site, lambda: set(site.assigned().values()) == {2}))
    _kubectl(site, "rollback", "nilm")
    until(_obeys(site, lambda: site.condition("Ready") == ("True", "RolledBack")))
    assert set(site.assigned().values()) == {1}
    told = [(entry["version"], entry["outcome"], entry["reason"]) for entry in site.model()["history"]]
    assert told == [
        (1, "Promoted", "AliasMovedBack"),
        (2, "Promoted", "RolledOut"),
        (2, "Failed", "GateFailed"),
        (1, "Promoted", "RolledOut"),
    ]


def test_offline_nodes_block_nothing_are_counted_apart_and_catch_up_straight_to_what_is_current(
    site: Any, start: Start, source: Any, until: Callable[..., Any], awakens: Callable[..., None]
) -> None:
    start()
    awakens(site, until)
    stale = site.nodes[0]
    site.sleeps(stale)
    unseen = site.add_node()
    until(lambda: unseen in site.edge_nodes())
    site.wish()
    heard = set(site.nodes) - {stale, unseen}
    until(_obeys(site, lambda: site.condition("Ready") == ("True", "RolledOut")))
    assert site.assigned() == dict.fromkeys(heard, 1)
    counts = {key: site.model()["counts"][key] for key in ("total", "live", "offline", "neverSeen")}
    assert counts == {"total": 4, "live": 2, "offline": 1, "neverSeen": 1}
    rows = {row["name"]: row["state"] for row in site.model()["worstNodes"]}
    assert rows == {stale: "Offline", unseen: "NeverSeen"}
    source.version = 2
    until(_obeys(site, lambda: (site.model().get("lastGood") or {}).get("version") == 2))
    assert site.assigned() == dict.fromkeys(heard, 2)
    awakens(site, until)
    until(_obeys(site, lambda: site.assigned() == dict.fromkeys(site.nodes, 2)))
    until(_obeys(site, lambda: site.model()["counts"]["live"] == 4))
