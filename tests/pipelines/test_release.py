"""From measured variants to an unsigned release: golden answers of the very bytes, the card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright_contract import names
from edgewright_contract import release as contract
from edgewright_contract.digests import digest_of
from edgewright_pipelines import handover, release
from edgewright_pipelines.release import BuiltVariant, Figures, Origin, ReleaseError
from edgewright_pipelines.windows import WindowSet

WINDOW, LABELS = 64, ("fridge", "kettle")
DIGEST = "sha256:" + "1" * 64
ORIGIN = Origin("tiny", DIGEST, DIGEST, True, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
GOLDEN = np.arange(3 * WINDOW, dtype=np.uint16).reshape(3, WINDOW)


def exported(bias: float) -> bytes:
    """Mean watts below 100 are a fridge: softmax([bias, mean - 100])."""
    weight = np.zeros((WINDOW, 2), dtype=np.float32)
    weight[:, 1] = 1 / WINDOW
    tensors = [
        numpy_helper.from_array(weight, "w"),
        numpy_helper.from_array(np.array([bias, -100], np.float32), "b"),
    ]
    nodes = [
        helper.make_node("Flatten", ["watts"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    watts = helper.make_tensor_value_info("watts", TensorProto.FLOAT, ["batch", 1, WINDOW])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "g", [watts], [answer], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


FP32 = BuiltVariant("base-fp32", exported(0), contract.Precision.FP32, None, None, Figures(130, 128, 10.0, 12.0, None))
INT8 = replace(FP32, name="base-int8", onnx=exported(1), precision=contract.Precision.INT8, parent="base-fp32")


def build(**changed: Any) -> release.UnsignedRelease:
    parts: dict[str, Any] = {
        "origin": ORIGIN,
        "window": contract.Window(seconds=WINDOW, hop_seconds=16),
        "labels": LABELS,
        "variants": [FP32, INT8],
        "golden": GOLDEN,
        "tolerance": 0.01,
        **changed,
    }
    return release.build(**parts)


def test_the_numbered_files_are_a_release_of_the_very_bytes() -> None:
    files = build().numbered(7, 1_700_000_000)
    parsed = contract.parse_signed(files[names.RELEASE_FILE], {path: digest_of(data) for path, data in files.items()})
    assert (parsed.version, parsed.sequence, parsed.registered_model) == (7, 1_700_000_000, "tiny")
    assert parsed.provenance.created == "2026-01-02T03:04:05Z"
    for variant, built in zip(parsed.variants, (FP32, INT8), strict=True):
        assert files[variant.file] == built.onnx
        assert variant.bytes == len(built.onnx)
    means = GOLDEN.mean(axis=1) - 100
    expected = 1 / (1 + np.exp(means))
    answers = np.array(parsed.variants[0].golden.answers)
    assert np.allclose(answers[:, 0], expected, atol=1e-5)
    assert parsed.variants[1].golden.answers != parsed.variants[0].golden.answers
    assert np.array_equal(np.frombuffer(files[names.GOLDEN_FILE], "<u2").reshape(3, WINDOW), GOLDEN)


def test_only_number_and_sequence_differ_between_two_publications() -> None:
    unsigned = build()
    first, second = unsigned.numbered(1, 100), unsigned.numbered(2, 200)
    assert {path for path in first if first[path] != second[path]} == {names.RELEASE_FILE}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"golden": GOLDEN.astype(np.int32)}, r"uint16 \[count, 64\], not int32"),
        ({"golden": GOLDEN[:, :10]}, r"uint16 \[count, 64\], not uint16 \(3, 10\)"),
        ({"labels": ("a", "a")}, "labels repeat"),
        ({"variants": [FP32, FP32]}, "variant names repeat"),
        ({"variants": [INT8]}, "its FP32 parent must be in the release"),
        ({"variants": []}, "variants: List should have at least 1"),
        ({"tolerance": 0.9}, "tolerance"),
        ({"origin": replace(ORIGIN, registered_model="../up")}, "registered_model"),
    ],
)
def test_parts_that_do_not_fit_are_told(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ReleaseError, match=told):
        build(**changed)


def test_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="version"):
        build().numbered(0, 100)


def test_the_card_says_that_made_up_data_has_no_scores() -> None:
    card = build().files[names.CARD_FILE].decode()
    assert "made-up data: its scores mean nothing" in card
    assert "| base-int8 | int8 |" in card
    assert "| - | - |" in card


@pytest.fixture
def windows() -> Callable[[list[int]], WindowSet]:
    def make(labels: list[int]) -> WindowSet:
        count = len(labels)
        watts = (np.arange(count, dtype=np.uint16)[:, None] + 1) * np.ones((1, WINDOW), dtype=np.uint16)
        day = np.zeros(count, dtype=np.int32)
        return WindowSet(watts, np.array(labels, np.int16), day, ("one",), LABELS)

    return make


def test_golden_windows_take_turns_between_classes(windows: Callable[[list[int]], WindowSet]) -> None:
    found = handover.golden_of(windows([0, 0, 0, 1, 1, 0]), 4)
    # the most energy first: of class 0 the windows of 6 and 3 watts, of class 1 those of 5 and 4
    assert found[:, 0].tolist() == [6, 5, 3, 4]
    assert handover.golden_of(windows([0, 1]), 32).shape == (2, WINDOW)
    assert handover.golden_of(windows([1, 1]), 1)[:, 0].tolist() == [2]
