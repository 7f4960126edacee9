"""What may be asked for, on the real API server with a real operator: a window, a pinned variant, a version."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

Start = Callable[..., Any]
DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


def _window(begins: timedelta, ends: timedelta) -> dict[str, Any]:
    """A window of every day, from now on, in a zone that is not the machine's."""
    now = datetime.now(UTC) + timedelta(hours=9)
    zone = "Asia/Tokyo"  # nine hours ahead, without summer time
    return {"days": DAYS, "start": f"{now + begins:%H:%M}", "end": f"{now + ends:%H:%M}", "timeZone": zone}


def _assigned(site: Any) -> dict[str, tuple[int, str]]:
    return {
        name: (row["live"]["version"], row["live"]["variant"])
        for name, node in site.edge_nodes().items()
        for row in node["spec"].get("models") or []
    }


def _message(site: Any, kind: str) -> str:
    return str(next(entry["message"] for entry in site.model()["conditions"] if entry["type"] == kind))


def test_a_closed_window_holds_the_wave_back_and_an_open_one_lets_it_begin(
    site: Any, start: Start, until: Callable[..., Any], joins: Callable[..., None], finishes: Callable[..., None]
) -> None:
    start()
    closed, opened = _window(timedelta(hours=2), timedelta(hours=3)), _window(timedelta(hours=-1), timedelta(hours=2))
    joins(site, until, rollout={"window": closed})
    until(lambda: site.condition("Reconciling") == ("True", "OutsideWindow"))
    time.sleep(1.0)  # several rounds
    assert site.assigned() == {}
    assert f"{closed['start']}-{closed['end']} Asia/Tokyo" in _message(site, "Ready")
    site.wish({"window": opened})
    until(lambda: len(site.assigned()) == 1)
    site.wish({"window": closed})  # in mid-wave: who is exposed stays, nobody else is moved
    site.obey()
    until(lambda: site.condition("Reconciling") == ("True", "OutsideWindow"))
    assert len(site.assigned()) == 1
    site.wish({"window": opened})
    finishes(site, until, 1)


def test_a_pin_and_a_version_are_followed_and_mended(
    site: Any, start: Start, source: Any, until: Callable[..., Any], joins: Callable[..., None]
) -> None:
    source.version = 5  # where the alias points, which nobody asks for here
    three = {"registeredModel": "nilm-test", "version": 3}
    start()
    joins(site, until, source=three, selection={"variant": "missing"})
    until(lambda: site.condition("Stalled") == ("True", "NoVariantFits"))
    assert "pinned variant missing is not in the release; it has f, q" in _message(site, "Stalled")
    assert site.assigned() == {}
    pinned = {"version": 3, "variant": "q"}
    site.wish(source=three, selection={"variant": "q"})

    def settled() -> bool:
        site.obey()
        here = _assigned(site) == dict.fromkeys(site.nodes, tuple(pinned.values()))
        return here and site.condition("Ready") == ("True", "RolledOut")

    until(settled)
    (row,) = site.model()["hardwareClasses"]
    assert (row["variant"], row["reason"]) == ("q", "pinned by spec.selection.variant")
    pinned["variant"] = "f"  # another pin moves the nodes without a new release
    site.wish(source=three, selection={"variant": "f"})
    until(settled)
    pinned["version"] = 4
    site.wish(source=three | {"version": 4}, selection={"variant": "f"})
    until(settled)
    told = [(entry["version"], entry["outcome"]) for entry in site.model()["history"]]
    assert told == [(4, "Promoted"), (3, "Promoted")]


def test_classes_max_unavailable_node_deadline_and_suspend(
    site: Any, start: Start, until: Callable[..., Any], joins: Callable[..., None], finishes: Callable[..., None]
) -> None:
    """The first wave has a node of each class, one is moved at a time, and a mute one is told of."""
    site.classes = {site.nodes[0]: "arm64-test"}
    start()
    joins(site, until, rollout={"maxUnavailable": 1, "nodeDeadline": "2s"})
    (first,) = until(lambda: site.assigned())
    assert site.model()["wave"]["size"] == 2
    until(lambda: site.condition("Stalled") == ("True", "NodeDeadline"))
    assert f"{first} first" in _message(site, "Stalled")
    assert list(site.assigned()) == [first]  # empty, it is the one that may be unavailable
    site.wish({"maxUnavailable": 1}, suspend=True)
    until(lambda: site.condition("Reconciling") == ("True", "Suspended"))
    site.obey(only=first)
    time.sleep(1.0)  # several rounds
    assert list(site.assigned()) == [first]
    site.wish({"maxUnavailable": 1})
    until(lambda: len(site.assigned()) == 2)
    assert {site.classes.get(node, "amd64-test") for node in site.assigned()} == {"arm64-test", "amd64-test"}
    finishes(site, until, 1)
