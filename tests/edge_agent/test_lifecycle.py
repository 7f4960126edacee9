from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from edgewright_agent import lifecycle as life
from edgewright_agent.state import Held, ModelRecord
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import Assignment, ModelState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NEW = ModelRecord(name="default/m", registered_model="m")


def _digest(number: int) -> str:
    return "sha256:" + f"{number:064x}"


def _wish(number: int) -> Assignment:
    return Assignment(version=number, sequence=number, manifest=_digest(number), variant="v")


def _held(number: int) -> Held:
    return Held(assignment=_wish(number), release=_digest(90), golden=_digest(91), file=_digest(92))


def _after(record: ModelRecord, *events: life.Event) -> ModelRecord:
    for event in events:
        record = life.transition(record, event, NOW)
    return record


def _to_live(number: int) -> tuple[life.Event, ...]:
    steps = (life.Fetched(_held(number)), life.Verified(), life.Tested(), life.Shadowed(), life.Promoted(60))
    return (life.Assigned(_wish(number), "a"), *steps)


def test_the_straight_line_ends_live_and_keeps_the_previous() -> None:
    record = _after(NEW, *_to_live(1), life.TrialOver(), *_to_live(2))
    assert record.state is ModelState.LIVE
    assert (record.live, record.previous) == (_held(2), _held(1))
    assert record.trial is not None


def test_two_crashes_in_trial_revert_and_quarantine() -> None:
    record = _after(NEW, *_to_live(1), life.TrialOver(), *_to_live(2), life.Crashed(Reason.CRASH_LOOP))
    assert record.state is ModelState.LIVE
    record = _after(record, life.Crashed(Reason.CRASH_LOOP))
    assert (record.state, record.live, record.quarantined) == (ModelState.REVERTED, _held(1), _digest(2))
    assert _after(record, life.Assigned(_wish(2), "other")) == record
    assert _after(record, life.Assigned(_wish(1), "b")).state is ModelState.LIVE


def test_a_crash_after_the_trial_reverts_nothing() -> None:
    record = _after(NEW, *_to_live(1), life.TrialOver())
    assert _after(record, life.Crashed(Reason.HANG), life.Crashed(Reason.HANG)) == record


def test_a_refusal_holds_until_the_attempt_changes() -> None:
    record = _after(NEW, life.Assigned(_wish(1), "a"), life.Refused(Reason.BAD_SIGNATURE, "no"))
    assert record.state is ModelState.REJECTED
    assert _after(record, life.Assigned(_wish(1), "a")) == record
    assert _after(record, life.Assigned(_wish(1), "b")).state is ModelState.PENDING


_EVENTS = st.one_of(
    st.builds(life.Assigned, st.integers(1, 3).map(_wish), st.sampled_from("ab")),
    st.integers(1, 3).map(lambda number: life.Fetched(_held(number))),
    st.sampled_from([life.Verified(), life.Tested(), life.Shadowed(), life.Promoted(60), life.TrialOver()]),
    st.sampled_from([life.Crashed(Reason.HANG), life.Refused(Reason.BAD_DIGEST, "x")]),
    st.just(life.Delayed(Reason.DOWNLOAD_FAILED, "x")),
)


@given(st.lists(_EVENTS, max_size=40))
def test_whatever_happens_only_tested_releases_go_live(events: list[life.Event]) -> None:
    record, tested = NEW, set[str]()
    for event in events:
        before, record = record, life.transition(record, event, NOW)
        if record.state is ModelState.TESTED and record.candidate:
            tested.add(record.candidate.assignment.manifest)
        assert record.live is None or record.live.assignment.manifest in tested
        if not isinstance(event, life.Crashed | life.Lost):
            assert before.live is None or record.live is not None, "serving stops by no ordinary event"
        if isinstance(event, life.Assigned):
            assert life.transition(record, event, NOW) == record, "the same wish again changes nothing"
