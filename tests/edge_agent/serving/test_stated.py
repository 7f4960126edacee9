"""The server's own reader of release.json finds what the contract wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgewright_agent.serving import stated
from edgewright_contract import release as r


@pytest.fixture
def document(write_release: Callable[..., dict[str, Any]], tmp_path: Path) -> bytes:
    few = r.Histogram(edges=[0.5, 0.75], counts=[1, 2, 3])
    reference = r.Reference(windows=6, threshold=0.25, unknown_ratio=0.5, confidence=few, mean_watts=few)
    return Path(write_release(tmp_path / "one", 7, 2.0, reference)["release"]).read_bytes()


def test_both_readers_find_the_same(document: bytes) -> None:
    whole, part = r.parse(document), stated.read(document)
    assert (part.version, list(part.labels)) == (whole.version, whole.labels)
    assert (part.window.seconds, part.window.hop_seconds) == (whole.window.seconds, whole.window.hop_seconds)
    (known,), (told,) = whole.variants, part.variants
    assert (told.name, told.digest) == (known.name, known.digest)
    assert told.reference is not None
    assert known.reference is not None
    assert told.reference.threshold == known.reference.threshold
    for name in ("confidence", "mean_watts"):
        one, other = getattr(told.reference, name), getattr(known.reference, name)
        assert (list(one.edges), list(one.counts)) == (other.edges, other.counts)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b"\xff", b'{"version":"1"}'])
def test_what_is_no_release_is_a_sentence(data: bytes) -> None:
    with pytest.raises(stated.BadDocument, match=r"^release\.json: "):
        stated.read(data)


def test_a_release_without_a_reference_is_read(document: bytes) -> None:
    content = json.loads(document)
    del content["variants"][0]["reference"]
    assert stated.read(json.dumps(content).encode()).variant("full").reference is None
