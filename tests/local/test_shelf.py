"""Which published release a node's manifest is, as `edgewright release` answers it."""

from pathlib import Path
from typing import Any

import pytest

from edgewright_local.commands import Commands
from edgewright_local.errors import LocalPlatformError
from edgewright_local.shelf import Shelf

FIRST, SECOND, UNKNOWN = (f"sha256:{number:064x}" for number in (1, 2, 3))


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shelf:
    listed = [{"name": "nilm-identify", "version": n, "manifest": m} for n, m in ((2, SECOND), (1, FIRST))]

    def answer(_: Commands, *arguments: str) -> dict[str, Any]:
        if arguments[1] == "list":
            return {"releases": listed}
        version = int(arguments[2].removeprefix("nilm-identify/"))
        release = {"variants": [{"name": "base-int8", "bytes": 100 * version}]}
        return {"manifest": {1: FIRST, 2: SECOND}[version], "release": release}

    monkeypatch.setattr(Commands, "answer", answer)
    return Shelf(Commands(tmp_path, tmp_path / "demo", lambda _: None), "http://127.0.0.1:1", tmp_path)


def test_the_manifest_decides_not_the_newest_version(shelf: Shelf) -> None:
    assert shelf.variant(FIRST, "base-int8")["bytes"] == 100
    assert shelf.variant(SECOND, "base-int8")["bytes"] == 200


def test_a_manifest_that_nobody_published_is_a_sentence(shelf: Shelf) -> None:
    with pytest.raises(LocalPlatformError, match=f"the registry does not have: {UNKNOWN}"):
        shelf.variant(UNKNOWN, "base-int8")


def test_a_variant_that_the_release_lacks_is_a_sentence(shelf: Shelf) -> None:
    with pytest.raises(LocalPlatformError, match="serves base-fp32, which is no variant"):
        shelf.variant(FIRST, "base-fp32")
