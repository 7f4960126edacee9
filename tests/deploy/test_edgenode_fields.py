"""Whoever may watch one EdgeNode may watch all, so what it may hold is a closed list: adding to it is a decision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from edgewright_contract import crd

# Digests and names that the operator chose, states and reasons of closed sets, counts, sizes, latencies, ratios, times.
# No address, no token, no watt, no appliance.
_ALLOWED = {
    "spec.trust",
    "spec.models.name",
    "spec.models.registeredModel",
    "spec.models.live.version",
    "spec.models.live.sequence",
    "spec.models.live.manifest",
    "spec.models.live.variant",
    "spec.models.benchmark.manifest",
    "spec.models.benchmark.variants",
    "spec.models.permit",
    "spec.models.since",
    "spec.models.removedWithModel",
    "spec.models.orphaned",
    *(
        f"status.hardware.{name}"
        for name in ("class", "arch", "cpu", "flags", "cores", "memoryBytes", "agentVersion", "runtimeVersion")
    ),
    *(f"status.models.{name}" for name in ("name", "state", "reason", "message", "target")),
    *(f"status.models.trial.{name}" for name in ("since", "until")),
    *(f"status.models.{slot}.{name}" for slot in ("live", "previous") for name in ("version", "manifest", "variant")),
    *(
        f"status.models.benchmark.{name}"
        for name in ("digest", "runtimeVersion", "p50Microseconds", "p95Microseconds", "rssBytes", "at")
    ),
    *(
        f"status.models.figures.{name}"
        for name in (
            "manifest", "samples", "effectiveSamples", "replayed", "errors", "p50Microseconds", "p95Microseconds",
            "agreement", "unknownRatio", "drift", "rssBytes", "previousP95Microseconds", "previousRssBytes", "since",
        )
    ),
    *(
        f"status.conditions.{name}"
        for name in ("type", "status", "reason", "message", "lastTransitionTime", "observedGeneration")
    ),
}  # fmt: skip


def _leaves(schema: dict[str, Any], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    below = schema.get("items", schema)
    if "properties" not in below:
        yield place, below
        return
    for name, field in below["properties"].items():
        yield from _leaves(field, f"{place}.{name}")


def _fields() -> dict[str, dict[str, Any]]:
    (definition,) = [found for found in crd.crds() if found["spec"]["names"]["kind"] == "EdgeNode"]
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return {place: field for part in ("spec", "status") for place, field in _leaves(schema[part], part)}


def test_it_holds_nothing_that_is_not_on_the_list() -> None:
    assert set(_fields()) - _ALLOWED == set()


@pytest.mark.parametrize("place", [place for place, field in _fields().items() if field["type"] == "string"])
def test_a_text_is_bounded(place: str) -> None:
    """By length, a pattern, a list of words, or the form of a time: nothing else may be put in there."""
    field = _fields()[place]
    assert {"maxLength", "pattern", "enum"} & field.keys() or field.get("format") == "date-time"


def test_no_field_takes_whatever_comes() -> None:
    assert [place for place, field in _fields().items() if field.get("x-kubernetes-preserve-unknown-fields")] == []
