from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from edgewright_agent.disk import READ, open_plain
from edgewright_agent.saved import StateError
from edgewright_agent.starting import FolderInUse, locked
from edgewright_agent.state import AgentState, Floors
from edgewright_agent.store import STATE_FILE, BlobError, Store
from edgewright_contract.digests import digest_of


def test_a_crash_at_any_point_leaves_the_old_or_the_new_state(
    tmp_path: Path, faulty: Any, power_cut: type[BaseException]
) -> None:
    old, new = AgentState(trust=digest_of(b"1")), AgentState(trust=digest_of(b"2"))
    cuts = 0
    for number in range(1, 50):
        folder = tmp_path / str(number)
        Store(folder).save(old)
        disk = faulty(folder)
        disk.fault_at = number
        try:
            store = Store(folder, disk.ops())
            store.load()
            store.save(new)
        except power_cut:
            cuts += 1
            assert Store(folder).load() in (old, new)
            Store(folder).save(new)
        assert Store(folder).load() == new
    assert cuts == 6  # create, write, fsync, rename the old, rename the new, fsync of the folder


def test_a_raised_floor_outlives_the_state(tmp_path: Path) -> None:
    floors = Floors(trust=3, signed=5, models={"m": 7})
    Store(tmp_path).save(AgentState(floors=floors))
    (tmp_path / STATE_FILE).unlink()
    assert Store(tmp_path).load().floors == floors


def test_two_agents_never_work_in_one_folder(tmp_path: Path) -> None:
    held = locked(tmp_path)
    with pytest.raises(FolderInUse, match="another agent works here"):
        locked(tmp_path)
    os.close(held)
    os.close(locked(tmp_path))


@pytest.mark.parametrize("kind", ["pipe", "link", "hard link", "folder", "device"])
def test_what_is_no_plain_file_is_neither_waited_for_nor_followed(tmp_path: Path, kind: str) -> None:
    store, data = Store(tmp_path), b"good"
    digest = digest_of(data)
    aside = tmp_path / "aside"
    aside.write_bytes(data)
    for place in (store.path(digest), store.part(digest)):
        match kind:
            case "pipe":
                os.mkfifo(place)
            case "link":
                place.symlink_to(aside)
            case "hard link":
                place.hardlink_to(aside)
            case "folder":
                place.mkdir()
                (place / "inner").write_bytes(b"x")
            case "device":
                place.symlink_to("/dev/zero")
    assert not store.has(digest, 10)
    descriptor = store.open_part(digest)
    os.write(descriptor, data)
    os.close(descriptor)
    store.adopt_part(digest, 10)
    assert store.read(digest, 10) == data
    assert aside.read_bytes() == data
    assert aside.stat().st_nlink == 1, "our blob is a file of its own"


def test_planted_things_do_not_stop_the_state_from_being_saved_or_garbage_from_being_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    os.mkfifo(tmp_path / "state.json.tmp")
    (tmp_path / "floors.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError):
        store.load()
    (tmp_path / "floors.json").unlink()
    state = AgentState(trust=digest_of(b"1"))
    store.save(state)
    assert store.load() == state
    os.mkfifo(tmp_path / "blobs" / "pipe")
    (tmp_path / "blobs" / "folder").mkdir()
    store.collect(set())
    assert list((tmp_path / "blobs").iterdir()) == []


def test_a_device_is_refused_by_what_it_is() -> None:
    from edgewright_agent.disk import FileOps

    with pytest.raises(OSError, match="not a plain file"):
        open_plain(FileOps(), Path("/dev/null"), READ)


def _put(store: Store, data: bytes) -> str:
    digest = digest_of(data)
    store.path(digest).write_bytes(data)
    return digest


def test_changed_bytes_links_and_long_files_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digest = _put(store, b"good")
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
    kept, gone = _put(store, b"kept"), _put(store, b"gone")
    store.part(gone).write_bytes(b"half")
    store.collect({kept})
    assert store.has(kept, 10)
    assert not store.has(gone, 10)
    assert not store.part(gone).exists()


def _two_versions(folder: Path) -> tuple[AgentState, AgentState]:
    before, last = (AgentState(trust=digest_of(text), floors=Floors(trust=3)) for text in (b"before", b"last"))
    store = Store(folder)
    store.save(before)
    store.save(last)
    return before, last


def test_wherever_the_state_is_damaged_the_version_before_it_is_taken(tmp_path: Path) -> None:
    before, last = _two_versions(tmp_path)
    path = tmp_path / STATE_FILE
    whole = path.read_bytes()
    assert Store(tmp_path).load() == last
    damages = [whole[:place] for place in range(len(whole))]
    damages += [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in range(len(whole))]
    damages += [whole + b" ", bytes(len(whole)), b"{}", b"{", b"null"]
    for data in damages:
        path.write_bytes(data)
        store = Store(tmp_path)
        assert store.load() == before
        assert "state.json was damaged" in store.damage
        assert not path.exists()
        assert (tmp_path / "damaged-state.json").read_bytes() == data
    store.save(last)
    assert Store(tmp_path).load() == last
    assert Store(tmp_path).load() == last  # and the version before it was not overwritten by what was damaged
    path.unlink()
    assert Store(tmp_path).load() == before


def test_with_both_versions_damaged_the_node_begins_anew_above_its_floors(tmp_path: Path) -> None:
    _two_versions(tmp_path)
    for name in (STATE_FILE, f"before-{STATE_FILE}"):
        (tmp_path / name).write_bytes(b"{")
    assert Store(tmp_path).load() == AgentState(floors=Floors(trust=3))


def test_damaged_floors_are_known_from_the_state(tmp_path: Path) -> None:
    _, last = _two_versions(tmp_path)
    (tmp_path / "floors.json").write_bytes(b"{")
    store = Store(tmp_path)
    assert store.load() == last
    store.save(last)
    assert (tmp_path / "floors.json").exists()


def test_where_no_floor_is_known_any_more_nothing_begins(tmp_path: Path) -> None:
    _two_versions(tmp_path)
    for name in (STATE_FILE, f"before-{STATE_FILE}", "floors.json"):
        (tmp_path / name).write_bytes(b"{")
    with pytest.raises(StateError, match=r"state\.json was damaged .*floors\.json was damaged .*may not go back to"):
        Store(tmp_path).load()
