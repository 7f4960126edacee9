from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from edgewright_agent import events as ev
from edgewright_agent import lifecycle as life
from edgewright_agent.state import Held, ModelRecord
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import Assignment, ModelState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NEW = ModelRecord(name="default/m", registered_model="m")
CRASH = ev.Crashed(Reason.CRASH_LOOP, "the server ended with -11")
HANG = ev.Crashed(Reason.HANG, "no sign of life")


def _digest(number: int) -> str:
    return "sha256:" + f"{number:064x}"


def _wish(number: int) -> Assignment:
    return Assignment(version=number, sequence=number, manifest=_digest(number), variant="v")


def _held(number: int, trust: int = 93) -> Held:
    wish = _wish(number)
    return Held(assignment=wish, release=_digest(90), golden=_digest(91), file=_digest(92), trust=_digest(trust))


def _after(record: ModelRecord, *events: ev.Event) -> ModelRecord:
    for event in events:
        record = life.transition(record, event, NOW)
    return record


def _to_live(number: int) -> tuple[ev.Event, ...]:
    held = _held(number)
    steps = (ev.Fetched(held), ev.Verified(held), ev.Tested(), ev.Shadowed(), ev.Promoted(60, ev.Evidence(5)))
    return (ev.Assigned(_wish(number), "a"), *steps)


TRIAL_OVER = ev.Ticked(60)
SETTLED_2 = _after(NEW, *_to_live(1), TRIAL_OVER, *_to_live(2), TRIAL_OVER)
ON_TRIAL_2 = _after(NEW, *_to_live(1), TRIAL_OVER, *_to_live(2))


def test_the_straight_line_ends_live_and_keeps_the_previous() -> None:
    assert ON_TRIAL_2.state is ModelState.LIVE
    assert (ON_TRIAL_2.live, ON_TRIAL_2.previous) == (_held(2), _held(1))
    assert ON_TRIAL_2.trial is not None
    assert SETTLED_2.trial is None


def test_two_crashes_in_trial_revert_and_quarantine() -> None:
    record = _after(ON_TRIAL_2, CRASH)
    assert record.state is ModelState.LIVE
    record = _after(record, CRASH)
    assert (record.state, record.live, record.quarantined) == (ModelState.REVERTED, _held(1), _wish(2))
    assert "2 times" in record.message
    assert _after(record, ev.Assigned(_wish(2), "other")) == record
    back = _after(record, ev.Assigned(_wish(1), "b"))
    assert (back.state, back.quarantined) == (ModelState.LIVE, None)


def test_one_hang_in_trial_reverts() -> None:
    assert _after(ON_TRIAL_2, HANG).state is ModelState.REVERTED


def test_ill_health_in_trial_reverts_at_once_and_later_does_nothing() -> None:
    ill = ev.Unhealthy(Reason.INFERENCE_ERRORS, "9 of 9 windows failed")
    record = _after(ON_TRIAL_2, ill)
    assert (record.state, record.live, record.message) == (ModelState.REVERTED, _held(1), "9 of 9 windows failed")
    assert _after(SETTLED_2, ill) == SETTLED_2


def test_after_the_trial_a_third_crash_without_a_healthy_time_falls_back_to_the_previous() -> None:
    record = _after(SETTLED_2, CRASH, CRASH)
    assert record.live == _held(2)
    assert _after(record, ev.Settled(), CRASH, CRASH).live == _held(2)
    record = _after(record, CRASH)
    assert (record.state, record.live, record.quarantined) == (ModelState.REVERTED, _held(1), _wish(2))


def test_without_a_previous_a_settled_release_is_never_taken_away() -> None:
    record = _after(NEW, *_to_live(1), TRIAL_OVER)
    assert _after(record, *[CRASH] * 9, *[HANG] * 9) == record


def test_a_release_under_which_the_agent_itself_keeps_dying_is_reverted_within_twenty_starts() -> None:
    record = ON_TRIAL_2
    starts = 0
    while record.state is ModelState.LIVE and starts < 20:
        record, starts = _after(record, ev.Started()), starts + 1
    assert (record.state, record.live, starts) == (ModelState.REVERTED, _held(1), life.MAX_STARTS)


def test_ends_that_were_asked_for_do_not_count() -> None:
    record = ON_TRIAL_2
    for _ in range(20):
        record = _after(record, ev.Started(), ev.Stopped())
    assert record == ON_TRIAL_2


def test_a_refusal_holds_until_the_attempt_changes() -> None:
    record = _after(NEW, ev.Assigned(_wish(1), "a"), ev.Refused(Reason.BAD_SIGNATURE, "no"))
    assert record.state is ModelState.REJECTED
    assert _after(record, ev.Assigned(_wish(1), "a")) == record
    assert _after(record, ev.Assigned(_wish(1), "b")).state is ModelState.PENDING


def test_what_is_under_way_is_verified_again_when_trust_changes() -> None:
    for count in (2, 3, 4, 5):
        record = _after(NEW, *_to_live(1)[:count])
        assert _after(record, ev.Assigned(_wish(1), "b")).state is ModelState.FETCHED


def test_what_is_lost_is_kept_and_found_again() -> None:
    record = _after(SETTLED_2, ev.Lost(Reason.STORAGE_ERROR, "changed on disk"))
    assert (record.state, record.live, record.broken) == (ModelState.PENDING, _held(1), [_held(2)])
    assert record.blobs() >= _held(2).blobs()
    record = _after(record, ev.Lost(Reason.STORAGE_ERROR, "absent"))
    assert (record.live, record.broken) == (None, [_held(1), _held(2)])
    found = _after(record, ev.Found(_held(2)), ev.Assigned(_wish(2), "c"))
    assert (found.state, found.live, found.broken) == (ModelState.LIVE, _held(2), [_held(1)])


def test_no_history_is_said_for_as_long_as_the_trial_lasts() -> None:
    record = _after(NEW, *_to_live(1)[:-1], ev.Promoted(60, ev.Evidence(0)))
    assert record.reason == Reason.NO_HISTORY
    assert _after(record, TRIAL_OVER).reason == Reason.SERVING


def test_a_restart_begins_again_at_verification_because_the_new_server_holds_nothing() -> None:
    for count in (3, 4, 5):
        record = _after(NEW, *_to_live(1)[:count], ev.Started())
        assert (record.state, record.candidate) == (ModelState.FETCHED, _held(1, 93))
    shadow = _after(NEW, *_to_live(1)[:5])
    assert _after(shadow, ev.Unloaded()).state is ModelState.TESTED


def test_a_model_that_kills_the_server_while_it_loads_is_reverted() -> None:
    record = _after(NEW, *_to_live(1)[:4], CRASH, CRASH)
    assert (record.state, record.quarantined) == (ModelState.REVERTED, _wish(1))


def test_a_candidate_whose_files_are_gone_is_fetched_again() -> None:
    record = _after(NEW, *_to_live(1)[:2], ev.Gone(Reason.STORAGE_ERROR, "absent"))
    assert (record.state, record.candidate) == (ModelState.PENDING, None)


@given(st.lists(st.tuples(st.floats(0.1, 30), st.timedeltas(timedelta(days=-9999), timedelta(days=9999)))))
def test_a_trial_lasts_as_long_as_it_should_whatever_the_wall_clock_does(jumps: list[tuple[float, timedelta]]) -> None:
    record, passed = ON_TRIAL_2, 0.0
    for seconds, jump in jumps:
        record = life.transition(record, ev.Ticked(seconds), NOW + jump)
        passed += seconds
        if abs(passed - 60) > 1e-6:
            assert (record.trial is None) == (passed > 60), (passed, record.trial_seconds)
        if record.trial is None:
            return


_EVENTS = st.one_of(
    st.builds(ev.Assigned, st.integers(1, 3).map(_wish), st.sampled_from("ab")),
    st.integers(1, 3).map(lambda number: ev.Fetched(_held(number))),
    st.integers(1, 3).map(lambda number: ev.Verified(_held(number, 94))),
    st.sampled_from([ev.Tested(), ev.Shadowed(), ev.Promoted(60, ev.Evidence(1)), ev.Ticked(30), ev.Settled()]),
    st.sampled_from([CRASH, HANG, ev.Unhealthy(Reason.INFERENCE_ERRORS, "x"), ev.Refused(Reason.BAD_DIGEST, "x")]),
    st.sampled_from([ev.Started(), ev.Stopped(), ev.Lost(Reason.STORAGE_ERROR, "x")]),
    st.integers(1, 3).map(lambda number: ev.Found(_held(number))),
    st.sampled_from([ev.Delayed(Reason.DOWNLOAD_FAILED, "x"), ev.Gone(Reason.STORAGE_ERROR, "x"), ev.Unloaded()]),
)
_TAKES_AWAY = (ev.Crashed, ev.Unhealthy, ev.Started, ev.Lost)


@given(st.lists(_EVENTS, max_size=60))
def test_whatever_happens_only_tested_releases_go_live(events: list[ev.Event]) -> None:
    record, tested = NEW, set[str]()
    for event in events:
        before, record = record, life.transition(record, event, NOW)
        if record.state is ModelState.TESTED and record.candidate:
            tested.add(record.candidate.assignment.manifest)
        assert record.live is None or record.live.assignment.manifest in tested
        assert (record.trial is None) == (record.trial_seconds == 0)
        if not isinstance(event, _TAKES_AWAY):
            assert before.live is None or record.live is not None, "serving stops by no ordinary event"
        if isinstance(event, ev.Lost):
            assert record.blobs() >= (before.live.blobs() if before.live else set()), "what is lost is not thrown away"
        if isinstance(event, ev.Assigned):
            assert life.transition(record, event, NOW) == record, "the same wish again changes nothing"
