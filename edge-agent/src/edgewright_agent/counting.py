"""Figures over restarts: a server begins to count at zero, and what the operator reads must not fall."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from edgewright_agent import drift
from edgewright_agent.state import Counted, ModelRecord
from edgewright_contract.edgenode import Assignment

REPORTED_SECONDS: Final = 48 * 3600.0
"""After so long nobody waits for figures of a release any more."""
AGES: Final = 20
"""Figures are told again when they have become a twentieth older, and never before the interval has passed."""


class Counts:
    """Of each model: what ended servers counted of the live release, and what the present one counts."""

    def __init__(self) -> None:
        self._ended: dict[str, Counted] = {}
        self._now: dict[str, Mapping[str, Any]] = {}

    def resume(self, record: ModelRecord) -> None:
        """Go on from what was saved before the agent's own restart."""
        if record.counted is not None:
            self._ended[record.name] = record.counted

    def look(self, models: Mapping[str, Mapping[str, Any]]) -> None:
        """Take the present server's answer."""
        self._now = dict(models)

    def present(self) -> dict[str, Mapping[str, Any]]:
        """The last answer of the present server."""
        return self._now

    def server_ended(self, last: Mapping[str, Mapping[str, Any]]) -> None:
        """What a server counted until its last answer stays."""
        for name, values in last.items():
            now = counted(values)
            if now is not None:
                self._ended[name] = now.plus(self._ended.get(name))
        self._now = {}

    def total(self, record: ModelRecord) -> Counted | None:
        """Of the live release, since it went live; none where nothing was counted."""
        if record.live is None:
            return None
        wish = record.live.assignment
        nothing = Counted(manifest=wish.manifest, variant=wish.variant)
        total = nothing.plus(self._ended.get(record.name)).plus(counted(self._now.get(record.name, {})))
        return None if total == nothing else total

    def figures(self, record: ModelRecord) -> dict[str, Any] | None:
        """As EdgeNode.status has it: the present server's latencies and memory, everybody's counts."""
        now, total = self._now.get(record.name), self.total(record)
        if now is None or record.live is None or not _is_of(now, record.live.assignment):
            return None
        counts = (
            {} if total is None else total.model_dump(exclude={"variant", "compared", "agreed", "unknown", "spread"})
        )
        agreement = total.agreed / total.compared if total is not None and total.compared else None
        former = {"previous_p95_microseconds": record.previous_p95_microseconds}
        former["previous_rss_bytes"] = record.previous_rss_bytes
        told = {**counts, **former, "agreement": agreement, **_beside(now, total), "since": record.live_since}
        rest = ("p50Microseconds", "p95Microseconds", "rssBytes")
        return {**told, **{key: now[key] for key in rest if key in now}}


def _is_of(values: Mapping[str, Any], live: Assignment) -> bool:
    """Whether the server counted these of what is live, and not of another variant of the same release."""
    return (values.get("manifest"), values.get("variant")) == (live.manifest, live.variant)


def _beside(now: Mapping[str, Any], total: Counted | None) -> dict[str, float | None]:
    """Unknown ratio and drift against the release's reference; none where it has none."""
    windows = 0 if total is None else sum(total.spread.get("confidence", ()))
    if total is None or "spread" not in now or not windows:
        return {}
    found = drift.farthest(now["spread"]["expected"], total.spread)
    return {"unknown_ratio": total.unknown / windows, "drift": found}


def counted(values: Mapping[str, Any]) -> Counted | None:
    """From one model's part of the server's answer."""
    if "manifest" not in values:
        return None
    kept = ("samples", "errors", "replayed", "compared", "agreed")
    counts = {key: int(values.get(key, 0)) for key in kept}
    spread = values.get("spread", {"unknown": 0, "found": {}})
    counts |= {"effective_samples": int(values.get("effectiveSamples", 0)), "unknown": int(spread["unknown"])}
    return Counted(manifest=values["manifest"], variant=values.get("variant", ""), spread=spread["found"], **counts)


def due(record: ModelRecord, told_seconds_ago: float, interval: float, now: datetime) -> bool:
    """Whether figures of the live release are news: each interval while young, ever more seldom later, then no more."""
    if record.live_since is None:
        return False
    age = abs((now - datetime.fromisoformat(record.live_since)).total_seconds())
    return age <= REPORTED_SECONDS and told_seconds_ago >= max(interval, age / AGES)
