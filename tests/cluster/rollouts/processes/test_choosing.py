"""Each hardware class runs what measures best on it, with a real operator; the agents' measurements are played."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Start = Callable[..., Any]
SMALLEST = {"objective": "Size", "deadline": "10m"}


def _row(site: Any, name: str) -> dict[str, Any]:
    return next(row for row in site.model()["hardwareClasses"] if row["name"] == name)


def _asked(site: Any) -> list[str]:
    return [name for name, node in site.edge_nodes().items() if node["spec"].get("models")]


def test_each_class_runs_its_own_best_and_never_what_is_slower_there_than_its_parent(
    site: Any, start: Start, until: Callable[..., Any], joins: Callable[..., None]
) -> None:
    """The smaller INT8 is faster than its FP32 parent on one class and slower on the other."""
    odd = site.nodes[0]
    site.classes = {odd: "arm64-test"}
    site.speeds = {"amd64-test": {"f": 1000, "q": 2400}, "arm64-test": {"f": 8000, "q": 2350}}
    site.add_node()
    start()
    joins(site, until, selection=SMALLEST)
    until(lambda: site.condition("Reconciling") == ("True", "Measuring"))
    until(lambda: len(_asked(site)) == 3)  # two of the larger class, the only one of the other; after the status
    assert site.assigned() == {}

    def settled() -> bool:
        site.measure()
        site.obey()
        return bool(site.condition("Ready") == ("True", "RolledOut"))

    until(settled)
    serving = {name: node["status"]["models"][0]["live"]["variant"] for name, node in site.edge_nodes().items()}
    assert serving == dict.fromkeys(site.nodes, "f") | {odd: "q"}
    assert (_row(site, "arm64-test")["p95Milliseconds"], _row(site, "amd64-test")["p95Milliseconds"]) == (4.7, 2.0)
    measured = {one["variant"]: one["p50Microseconds"] for one in _row(site, "amd64-test")["candidates"]}
    assert measured == site.speeds["amd64-test"]
    _an_outlier_is_named(site, until, next(name for name in site.nodes if name != odd))
    _nothing_fits(site, until)


def _an_outlier_is_named(site: Any, until: Callable[..., Any], node: str) -> None:
    site.odd = {node: {"p95Microseconds": 9000}}
    site.obey()
    found = until(lambda: [row for row in site.model().get("worstNodes") or [] if row["state"] == "Outlier"])
    assert [(row["name"], row["reason"]) for row in found] == [(node, "SlowerThanItsClass")]
    assert "p95 9 ms, 0.09 ms is usual in class amd64-test" in found[0]["message"]


def _nothing_fits(site: Any, until: Callable[..., Any]) -> None:
    """What has no variant there is told with the nearest miss, by class and, where no class has one, as the reason."""
    site.wish(selection=SMALLEST | {"constraints": {"maxP95": "4ms"}})
    until(lambda: site.condition("Degraded") == ("True", "NoVariantFits"))
    assert "the nearest is q: p95 4700 us, more than maxP95 4ms" in _row(site, "arm64-test")["reason"]
    assert _row(site, "amd64-test")["variant"] == "f"
