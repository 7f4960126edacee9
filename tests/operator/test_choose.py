"""Constraints, the pin and the nearest miss."""

from typing import Any

import pytest

from edgewright_contract.compressedmodel import Selection
from edgewright_contract.release import Release
from edgewright_operator.choose import choose


def variant(name: str, p50: float, size: int, f1: float | None, parent: str | None = None) -> dict[str, Any]:
    accuracy = {"macroF1": f1, "dayMacroF1": f1, "accuracy": f1, "bce": 1, "energyError": 0, "perClass": {}}
    return {
        "name": name,
        "file": f"variants/{name}.onnx",
        "digest": "sha256:" + "0" * 64,
        "bytes": size,
        "precision": "int8" if parent else "fp32",
        "parent": parent,
        "parameters": 1,
        "macs": 1,
        "accuracy": None if f1 is None else accuracy,
        "latency": {"p50Microseconds": p50, "p95Microseconds": 2 * p50, "machine": "m", "runtimeVersion": "1"},
        "golden": {"answers": [[0.5, 0.5]], "tolerance": 0.001},
    }


def release(*variants: dict[str, Any]) -> Release:
    return Release.model_validate(
        {
            "registeredModel": "nilm",
            "version": 1,
            "sequence": 1,
            "labels": ["a", "b"],
            "window": {"seconds": 64, "hopSeconds": 16},
            "variants": list(variants),
            "golden": {"digest": "sha256:" + "1" * 64, "count": 1},
            "provenance": {
                "recipeDigest": "sha256:" + "2" * 64,
                "dataDigest": "sha256:" + "3" * 64,
                "synthetic": False,
                "created": "2026-01-01T00:00:00Z",
            },
        }
    )


BIG = variant("big", 200, 4096, 0.9)
QUICK = variant("quick", 50, 2048, 0.85, "big")
SMALL = variant("small", 100, 512, 0.7)


@pytest.mark.parametrize(
    ("wish", "name"),
    [
        ({"objective": "Latency"}, "quick"),
        ({"objective": "Size"}, "small"),
        ({"objective": "Accuracy"}, "big"),
        ({"objective": "Size", "constraints": {"minMacroF1": 0.8}}, "quick"),
        ({"objective": "Latency", "constraints": {"maxMacroF1Drop": 0.01}}, "big"),
        ({"objective": "Accuracy", "constraints": {"maxSize": "1Ki"}}, "small"),
        ({"objective": "Accuracy", "constraints": {"maxSize": "2Ki"}}, "quick"),
        ({"variant": "big"}, "big"),
    ],
)
def test_the_objective_decides_among_those_that_meet_the_limits(wish: dict[str, Any], name: str) -> None:
    found = choose(release(BIG, QUICK, SMALL), Selection.model_validate(wish)).variant
    assert found is not None
    assert found.name == name


def test_an_int8_slower_than_its_parent_gives_way_to_the_parent() -> None:
    slow = variant("slow", 201, 10, 0.9, "big")
    found = choose(release(BIG, slow), Selection.model_validate({"objective": "Size"})).variant
    assert found is not None
    assert found.name == "big"


def test_the_nearest_miss_is_named_and_not_the_first_listed() -> None:
    far, near = variant("far", 1, 1, 0.1), variant("near", 1, 1, 0.88)
    choice = choose(release(far, near), Selection.model_validate({"constraints": {"minMacroF1": 0.9}}))
    assert choice.variant is None
    assert "near: macro-F1 0.88, less than minMacroF1 0.9" in choice.reason


def test_a_release_without_scores_meets_no_limit_on_scores() -> None:
    choice = choose(release(variant("x", 1, 1, None)), Selection.model_validate({"constraints": {"minMacroF1": 0.1}}))
    assert choice.variant is None
    assert "macro-F1 None" in choice.reason


def test_a_pin_that_is_not_there_says_what_is() -> None:
    choice = choose(release(BIG, QUICK), Selection.model_validate({"variant": "gone"}))
    assert choice.variant is None
    assert "big, quick" in choice.reason
