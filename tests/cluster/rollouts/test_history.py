"""The history of a stage notices each break of a promise, and nothing where all is well."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

GOOD, NEXT = (f"sha256:{number:064x}" for number in (1, 2))
NODE = "/apis/edgewright.dev/v1alpha1/edgenodes/n"
STATUS = "/apis/edgewright.dev/v1alpha1/namespaces/a/compressedmodels/nilm/status"


@pytest.fixture
def world(worlds: Callable[[Any], Any]) -> Any:
    """One node serves version 1, which is good; version 2 is under way."""
    begun = worlds(SimpleNamespace(shelf=SimpleNamespace(answered={GOOD, NEXT}), nodes=["n"], heard=[]))
    begun.wrote("PUT", STATUS, {"status": _status(GOOD, None)})
    _moved(begun, 1)
    begun.heard("n", _serving(GOOD))
    begun.wrote("PUT", STATUS, {"status": _status(GOOD, GOOD)})
    begun.wrote("PUT", STATUS, {"status": _status(NEXT, GOOD)})
    assert begun.broken == []
    return begun


def _status(target: str, good: str | None, **more: Any) -> dict[str, Any]:
    release = {"release": {"manifest": target}, "wave": {"size": 1}, "gate": {"verdict": "Pass"}}
    return release | ({"lastGood": {"manifest": good}} if good else {}) | more


def _serving(manifest: str) -> dict[str, Any]:
    return {"live": {"manifest": manifest}, "figures": {"effectiveSamples": 9}}


def _moved(world: Any, version: int, **entry: Any) -> None:
    live = {"manifest": f"sha256:{version:064x}", "sequence": 100 + version}
    world.wrote("PATCH", NODE, {"spec": {"models": [{"live": live} | entry]}})


def test_a_promotion_on_evidence_and_a_way_back_to_what_the_node_served_are_fine(world: Any) -> None:
    _moved(world, 2)
    world.heard("n", _serving(NEXT) | {"previous": {"manifest": GOOD}})
    _moved(world, 1)
    _moved(world, 2)
    world.wrote("PUT", STATUS, {"status": _status(NEXT, NEXT)})
    assert world.broken == []


@pytest.mark.parametrize("gate", [{"verdict": "Inconclusive"}, None])
def test_a_promotion_without_a_gate_that_passed(world: Any, gate: Any) -> None:
    _moved(world, 2)
    world.heard("n", _serving(NEXT))
    world.wrote("PUT", STATUS, {"status": _status(NEXT, NEXT, gate=gate)})
    assert world.broken == ["002 promoted without a gate that passed"]


def test_a_promotion_without_a_sample(world: Any) -> None:
    world.wrote("PUT", STATUS, {"status": _status(NEXT, NEXT)})
    assert world.broken == ["002 promoted without a sample"]


def test_more_exposed_than_the_wave_has(world: Any) -> None:
    world.wrote("PUT", STATUS, {"status": _status(NEXT, GOOD, wave={"size": 0})})
    _moved(world, 2)
    assert world.broken == ["1 exposed in a wave of 0"]


def test_a_release_that_nobody_verified(world: Any) -> None:
    world.verified.discard(NEXT)
    _moved(world, 2)
    assert world.broken == ["exposed to 002, which nobody verified"]


def test_a_release_in_quarantine(world: Any) -> None:
    world.wrote("PUT", STATUS, {"status": _status(NEXT, GOOD, quarantined=[{"manifest": NEXT}])})
    _moved(world, 2)
    assert world.broken == ["exposed to 002, which is quarantined"]


def test_a_step_back_needs_a_permit_where_the_node_did_not_serve_it(world: Any) -> None:
    _moved(world, 2)
    world.heard("n", _serving(NEXT))
    _moved(world, 1, permit="signed")
    assert world.broken == []
    _moved(world, 2)
    _moved(world, 1)
    assert world.broken == ["n sent back from 102 to 101 without a permit"]


def test_a_node_that_serves_what_it_was_never_assigned(world: Any) -> None:
    world.heard("n", _serving(NEXT))
    assert world.broken == ["n serves 002, unassigned"]
