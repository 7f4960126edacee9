from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgewright_agent.state import AgentState
from edgewright_agent.store import STATE_FILE, BlobError, FileOps, StateError, Store
from edgewright_contract.digests import digest_of


class PowerCut(BaseException):
    pass


def _cut_at(number: int) -> FileOps:
    count = 0

    def guarded(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                if call is os.write:
                    os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
                raise PowerCut
            return call(*arguments)

        return run

    return FileOps(guarded(os.write), guarded(os.fsync), guarded(os.replace), guarded(os.unlink))


def test_a_crash_at_any_point_leaves_the_old_or_the_new_state(tmp_path: Path) -> None:
    old, new = AgentState(trust_sequence=1), AgentState(trust_sequence=2)
    cuts = 0
    for number in range(1, 50):
        folder = tmp_path / str(number)
        Store(folder).save(old)
        try:
            Store(folder, _cut_at(number)).save(new)
        except PowerCut:
            cuts += 1
            assert Store(folder).load() in (old, new)
            Store(folder).save(new)
        assert Store(folder).load() == new
    assert cuts == 4  # write, fsync, rename, fsync of the folder


def test_a_crash_at_any_point_never_shows_a_broken_blob(tmp_path: Path) -> None:
    data = b"bytes" * 100
    for number in range(1, 6):
        store = Store(tmp_path / str(number), _cut_at(number))
        try:
            store.put(data)
        except PowerCut:
            path = store.path(digest_of(data))
            assert not path.exists() or path.read_bytes() == data


def test_changed_bytes_links_and_long_files_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digest = store.put(b"good")
    assert store.read(digest, 4) == b"good"
    with pytest.raises(BlobError, match="longer"):
        store.read(digest, 3)
    store.path(digest).write_bytes(b"evil")
    with pytest.raises(BlobError, match="changed"):
        store.read(digest, 4)
    store.path(digest).unlink()
    (tmp_path / "aside").write_bytes(b"good")
    store.path(digest).symlink_to(tmp_path / "aside")
    with pytest.raises(BlobError):
        store.read(digest, 4)


def test_collection_keeps_what_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    kept, gone = store.put(b"kept"), store.put(b"gone")
    store.part(gone).write_bytes(b"half")
    store.collect({kept})
    assert store.has(kept, 10)
    assert not store.has(gone, 10)
    assert not store.part(gone).exists()


def test_an_unreadable_state_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_text("{")
    with pytest.raises(StateError, match="move it away"):
        Store(tmp_path).load()
    assert (tmp_path / STATE_FILE).read_text() == "{"
