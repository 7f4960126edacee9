"""Permits are signed as the agents check them, and their lack is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edgewright_contract import keys, permit
from edgewright_operator import orphans, permits
from edgewright_operator.rollback import PermitWish

NOW = datetime(2026, 1, 5, tzinfo=UTC)


def test_a_permit_allows_just_the_step_that_was_decided(stage: Any, tmp_path: Path) -> None:
    play = stage.Play(stage.model(), stage.fleet(4)).run(stage.release(1)).run(stage.release(2))
    decision = play.step(stage.release(1))
    key = keys.generate()
    (tmp_path / "permit.key").write_bytes(keys.private_pem(key))
    moves, problem = permits.attached(decision.assignments, decision.permits, tmp_path / "permit.key", NOW)
    assert problem == ""
    for name, entry in moves.items():
        assert entry is not None
        assert entry.permit is not None
        opened = permit.open_permit(entry.permit, {keys.key_id(key.public_key()): key.public_key()})
        step = {"registered_model": "nilm-identify", "from_sequence": 1002, "to_manifest": stage.release(1).manifest}
        now = int(NOW.timestamp())
        assert permit.allows(opened, node=name, now=now, **step)
        assert not permit.allows(opened, node="other", now=now, **step)
        assert not permit.allows(opened, node=name, now=now + 31 * 86_400, **step)
        assert permit.peek(entry.permit) == opened


@pytest.mark.parametrize("content", [None, b"no key"])
def test_without_a_key_the_nodes_go_back_all_the_same_and_it_is_told(
    stage: Any, tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "permit.key").write_bytes(content)
    entry = stage.Play(stage.model(), stage.fleet(1)).run(stage.release(1)).nodes[0].assigned
    wish = PermitWish("nilm-identify", "n0", 5, stage.digest(1))
    moves, problem = permits.attached({"n0": entry}, {"n0": wish}, tmp_path / "permit.key", NOW)
    assert moves == {"n0": entry}
    assert "1 nodes go back without a permit" in problem


@pytest.mark.parametrize("text", ["", "{}", '{"payload": 7}', '{"payload": "!"}', '{"payload": "e30="}'])
def test_a_permit_that_cannot_be_read_is_none(text: str) -> None:
    assert permit.peek(text) is None


def test_what_is_left_of_a_model_that_is_gone(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(2)).run(stage.release(1))
    kept = orphans.left_behind(play.nodes[0].assigned)
    assert kept is not None
    assert (kept.orphaned, kept.live) == (True, play.nodes[0].assigned.live)
    (event,) = orphans.told([node.assigned for node in play.nodes])
    assert event.reason == "Orphaned"
    assert "2 nodes go on serving version 1" in event.message
    play.edit(deletionPolicy="Remove")
    play.step(stage.release(1))
    assert orphans.left_behind(play.nodes[0].assigned) is None
    assert orphans.told([node.assigned for node in play.nodes]) == ()
    assert play.step(stage.release(1)).assignments == {}


def test_an_object_made_anew_takes_its_nodes_up_again(stage: Any) -> None:
    play = stage.Play(stage.model(), stage.fleet(2)).run(stage.release(1))
    play.nodes = [replace(node, assigned=orphans.left_behind(node.assigned)) for node in play.nodes]
    play.model = stage.model()
    play.run(stage.release(1))
    assert [node.assigned.orphaned for node in play.nodes] == [None, None]
    assert play.reason == "RolledOut"
