"""For all parts: a release small enough to be signed a thousand times, with the shape that a real one has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from edgewright_pipelines.release import UnsignedRelease


@pytest.fixture(scope="session")
def small_release() -> Callable[..., UnsignedRelease]:
    """`small_release(name, **files)`: two variants whose files are made-up bytes; `files` replaces some by path."""
    from edgewright_contract import dsse, names
    from edgewright_contract.digests import digest_of
    from edgewright_pipelines.release import UnsignedRelease

    def make(name: str = "nilm-test", files: dict[str, bytes] | None = None) -> UnsignedRelease:
        content = {
            "variants/base-fp32.onnx": b"fp32 " * 400,
            "variants/base-int8.onnx": b"int8 " * 100,
            names.GOLDEN_FILE: bytes(2 * 2 * 64),
            names.REFERENCE_FILE: dsse.canonical({"schemaVersion": 1}),
            names.CARD_FILE: b"# card\n",
            **(files or {}),
        }
        return UnsignedRelease(name, content, _draft(name, content, digest_of, names.GOLDEN_FILE))

    return make


def _draft(name: str, files: dict[str, bytes], digest_of: Callable[[bytes], str], golden: str) -> dict[str, Any]:
    variants = [
        {
            "name": variant,
            "file": (file := f"variants/{variant}.onnx"),
            "digest": digest_of(files[file]),
            "bytes": len(files[file]),
            "precision": precision,
            "parent": parent,
            "pruning": None,
            "parameters": 1,
            "macs": 1,
            "accuracy": None,
            "latency": {"p50Microseconds": 1.0, "p95Microseconds": 2.0, "machine": "test", "runtimeVersion": "1"},
            "golden": {"answers": [[0.5, 0.5], [0.25, 0.75]], "tolerance": 0.01},
        }
        for variant, precision, parent in (("base-fp32", "fp32", None), ("base-int8", "int8", "base-fp32"))
    ]
    return {
        "schemaVersion": 1,
        "registeredModel": name,
        "labels": ["fridge", "kettle"],
        "window": {"seconds": 64, "hopSeconds": 16},
        "variants": variants,
        "golden": {"file": golden, "digest": digest_of(files[golden]), "count": 2},
        "provenance": {
            "recipeDigest": "sha256:" + "3" * 64,
            "dataDigest": "sha256:" + "4" * 64,
            "synthetic": True,
            "created": "2026-01-01T00:00:00Z",
            "runId": None,
        },
        "notAfter": None,
        "hardwareClasses": [],
    }
