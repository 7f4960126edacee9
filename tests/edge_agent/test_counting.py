from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from edgewright_agent.counting import Counts, due
from edgewright_agent.state import Counted, Held, ModelRecord
from edgewright_contract.edgenode import Assignment, Figures

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _digest(number: int) -> str:
    return "sha256:" + f"{number:064x}"


def _record(**changes: Any) -> ModelRecord:
    wish = Assignment(version=1, sequence=1, manifest=_digest(1), variant="v")
    held = Held(assignment=wish, release=_digest(2), golden=_digest(3), file=_digest(4), trust=_digest(5))
    since = "2026-01-01T00:00:00Z"
    return ModelRecord(name="default/m", registered_model="m", live=held, live_since=since, **changes)


def _answer(samples: int, manifest: str = _digest(1), **more: Any) -> dict[str, dict[str, Any]]:
    counts = {"samples": samples, "effectiveSamples": 2, "errors": 1, "replayed": 1, "compared": 4, "agreed": 3}
    rest = {"p50Microseconds": 5, "p95Microseconds": 9, "rssBytes": 100, "manifest": manifest, "variant": "v"}
    return {"default/m": {**counts, **rest, **more}}


def test_a_new_server_goes_on_where_the_former_ended() -> None:
    counts, record = Counts(), _record(previous_p95_microseconds=7)
    counts.look(_answer(10))
    first = counts.figures(record)
    counts.server_ended(counts.present())
    assert counts.figures(record) is None, "nothing is made up while no server runs"
    counts.look(_answer(5, p95Microseconds=11))
    second = counts.figures(record)
    assert first
    assert second
    assert (first["samples"], second["samples"], second["effective_samples"]) == (10, 15, 4)
    assert (second["agreement"], second["p95Microseconds"]) == (0.75, 11)
    assert second["previous_p95_microseconds"] == 7


def test_an_agent_that_was_restarted_goes_on_from_what_was_saved() -> None:
    saved = Counted(manifest=_digest(1), variant="v", samples=100, effective_samples=20)
    counts = Counts()
    counts.resume(_record(counted=saved))
    counts.look(_answer(10))
    figures = counts.figures(_record(counted=saved))
    assert figures
    assert (figures["samples"], figures["effective_samples"]) == (110, 22)


def _spread(unknown: int, *confidence: int) -> dict[str, Any]:
    expected = {"confidence": [100, 100, 100, 100], "meanWatts": [400]}
    return {
        "unknown": unknown,
        "found": {"confidence": list(confidence), "meanWatts": [sum(confidence)]},
        "expected": expected,
    }


def test_unknown_windows_and_drift_are_those_of_all_servers_together() -> None:
    counts, record = Counts(), _record()
    counts.look(_answer(10, spread=_spread(1, 10, 0, 0, 0)))
    few = counts.figures(record)
    assert few
    assert (few["unknown_ratio"], few["drift"]) == (0.1, None), "ten windows tell no drift"
    counts.server_ended(counts.present())
    counts.look(_answer(5, spread=_spread(5, 30, 0, 0, 0)))
    enough = counts.figures(record)
    assert enough
    assert enough["unknown_ratio"] == 6 / 40
    assert enough["drift"] > 1
    saved = counts.total(record)
    assert saved
    again = Counts()
    again.resume(_record(counted=Counted.model_validate_json(saved.model_dump_json())))
    again.look(_answer(0, spread=_spread(0, 0, 0, 0, 0)))
    after = again.figures(record)
    assert after
    assert (after["unknown_ratio"], after["drift"]) == (enough["unknown_ratio"], enough["drift"])


def test_a_release_without_a_reference_has_neither() -> None:
    counts = Counts()
    counts.look(_answer(10))
    figures = counts.figures(_record())
    assert figures
    assert "drift" not in figures
    assert "unknown_ratio" not in figures
    assert Figures.model_validate(figures).drift is None


def test_another_release_is_never_mixed_in() -> None:
    saved = Counted(manifest=_digest(9), variant="v", samples=100)
    counts = Counts()
    counts.resume(_record(counted=saved))
    counts.look(_answer(10))
    figures = counts.figures(_record(counted=saved))
    assert figures
    assert figures["samples"] == 10
    counts.look(_answer(10, manifest=_digest(9)))
    assert counts.figures(_record()) is None, "figures of the shadow are not those of what serves"


def test_another_variant_of_the_same_release_is_never_mixed_in() -> None:
    counts, record = Counts(), _record()
    counts.look(_answer(10, variant="small"))
    assert counts.figures(record) is None, "what serves is not what the node is told to have live"
    counts.server_ended(counts.present())
    counts.look(_answer(5))
    figures = counts.figures(record)
    assert figures
    assert (figures["samples"], figures["effective_samples"]) == (5, 2)
    saved = Counted(manifest=_digest(1), variant="small", samples=100)
    again = Counts()
    again.resume(_record(counted=saved))
    again.look(_answer(5))
    after = again.figures(_record(counted=saved))
    assert after
    assert after["samples"] == 5


def test_figures_are_told_each_interval_while_young_and_ever_more_seldom_later() -> None:
    record = _record()
    for hours, told_ago, expected in (
        (0.1, 60, True),
        (0.1, 30, False),
        (10, 60, False),
        (10, 1800, True),
        (60, 9e9, False),
    ):
        assert due(record, told_ago, 60, NOW + timedelta(hours=hours)) is expected, hours
    assert not due(ModelRecord(name="default/m", registered_model="m"), 9e9, 60, NOW)
