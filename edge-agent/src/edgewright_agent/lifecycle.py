"""The life of a model on a node as one pure function: record and event in, record out. Who acts stands in rollout.py.

Pending → Fetched → Verified → Tested → Shadow → Live, or Rejected / Reverted with a reason.
"""

from datetime import datetime, timedelta
from typing import Final

from edgewright_agent.events import (
    Assigned,
    Crashed,
    Delayed,
    Event,
    Fetched,
    Found,
    Gone,
    Lost,
    Promoted,
    Refused,
    Settled,
    Shadowed,
    Started,
    Stopped,
    Tested,
    Ticked,
    Unhealthy,
    Unloaded,
    Verified,
)
from edgewright_agent.state import Held, ModelRecord
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import ModelState, Trial
from edgewright_contract.timestamps import rfc3339

MAX_CRASHES: Final = 2
"""A release that takes the server down so often during shadow or trial is reverted."""
MAX_SETTLED_CRASHES: Final = 3
"""A release that passed its trial and takes the server down so often without a healthy time between is reverted too."""
MAX_STARTS: Final = 5
"""A release under which the agent itself ended so often without being told to is reverted."""


_STEPS: Final = {
    Tested: (ModelState.VERIFIED, ModelState.TESTED),
    Shadowed: (ModelState.TESTED, ModelState.SHADOW),
}
UNDER_WAY: Final = frozenset(
    {ModelState.PENDING, ModelState.FETCHED, ModelState.VERIFIED, ModelState.TESTED, ModelState.SHADOW}
)
"""States from which a step may still lead on; all others are settled."""
_NOTHING_COUNTED: Final = {
    "live_since": None,
    "counted": None,
    "previous_p95_microseconds": 0,
    "previous_rss_bytes": 0,
}
_RUNS: Final = frozenset({ModelState.VERIFIED, ModelState.TESTED, ModelState.SHADOW})
"""States of a candidate whose code runs on this node already."""


def transition(record: ModelRecord, event: Event, now: datetime) -> ModelRecord:
    """The record after the event. An event that does not fit the state changes nothing, so a repeat is harmless."""
    match event:
        case Assigned():
            return _assigned(record, event)
        case Fetched(candidate):
            fits = record.state is ModelState.PENDING and record.target == candidate.assignment
            return _moved(record, ModelState.FETCHED, candidate=candidate) if fits else record
        case Verified(candidate):
            fits = record.state is ModelState.FETCHED and record.target == candidate.assignment
            return _moved(record, ModelState.VERIFIED, candidate=candidate) if fits else record
        case Tested() | Shadowed():
            before, after = _STEPS[type(event)]
            return _moved(record, after) if record.state is before else record
        case Promoted():
            return _promoted(record, event, now)
        case Refused(reason, message):
            return _refused(record, reason, message)
        case Delayed(reason, message):
            under_way = record.state in UNDER_WAY
            return record.model_copy(update={"reason": reason.value, "message": message}) if under_way else record
        case _:
            return _suffered(record, event, now)


def _suffered(record: ModelRecord, event: Event, now: datetime) -> ModelRecord:
    match event:
        case Crashed():
            return _crashed(record, event)
        case Unhealthy(reason, message):
            return _reverted(record, reason, message) if on_trial(record) else record
        case Ticked(seconds):
            return _ticked(record, seconds, now)
        case Settled():
            return record.model_copy(update={"crashes": 0}) if record.crashes and not on_trial(record) else record
        case Started():
            return _started(record)
        case Stopped():
            return record.model_copy(update={"starts": max(0, record.starts - 1)})
        case Gone(reason, message):
            known = {"reason": reason.value, "message": message, "candidate": None}
            return _moved(record, ModelState.PENDING, **known) if record.state in UNDER_WAY else record
        case Unloaded():
            held = record.state is ModelState.SHADOW
            return record.model_copy(update={"state": ModelState.TESTED}) if held else record
        case Lost(reason, message):
            return _lost(record, reason, message)
        case Found(held):
            return _found(record, held)
        case _:
            return record


def on_trial(record: ModelRecord) -> bool:
    """Whether the server holds, or is loading, something of it that the node may still revert by itself."""
    on_the_way = record.state in (ModelState.TESTED, ModelState.SHADOW)
    return on_the_way or (record.state is ModelState.LIVE and record.trial is not None)


def _assigned(record: ModelRecord, event: Assigned) -> ModelRecord:
    wish = event.assignment
    if record.live is not None and record.live.assignment == wish:
        if record.state is ModelState.LIVE and record.target == wish:
            return record
        kept = {"target": wish, "attempt": event.attempt, "candidate": None, "quarantined": None}
        return _moved(record, ModelState.LIVE, reason=_serving(), **kept)
    if record.quarantined == wish:
        return record
    if record.target == wish and record.attempt == event.attempt:
        return record
    if record.target == wish and record.state in UNDER_WAY:  # trust, permit or class changed: checked again
        state = ModelState.FETCHED if record.candidate else ModelState.PENDING
        return record.model_copy(update={"attempt": event.attempt, "state": state})
    reason = Reason.DOWNLOADING.value
    fresh = {"candidate": None, "quarantined": None, "crashes": 0, "starts": 0}
    return _moved(record, ModelState.PENDING, reason=reason, target=wish, attempt=event.attempt, **fresh)


def _promoted(record: ModelRecord, event: Promoted, now: datetime) -> ModelRecord:
    if record.state is not ModelState.SHADOW or record.candidate is None:
        return record
    end = now + timedelta(seconds=event.trial_seconds)
    before = record.live or record.previous
    same = before is not None and before.assignment == record.candidate.assignment
    return _moved(
        record,
        ModelState.LIVE,
        reason=_serving() if event.evidence.replayed else Reason.NO_HISTORY.value,
        message="" if event.evidence.replayed else "there were no readings of its own to replay beforehand",
        live=record.candidate,
        previous=record.previous if same else before,
        candidate=None,
        broken=[],
        live_since=rfc3339(now),
        counted=None,
        previous_p95_microseconds=event.evidence.previous_p95_microseconds,
        previous_rss_bytes=event.evidence.previous_rss_bytes,
        trial=Trial(since=rfc3339(now), until=rfc3339(end)) if event.trial_seconds > 0 else None,
        trial_seconds=event.trial_seconds,
    )


def _refused(record: ModelRecord, reason: Reason, message: str) -> ModelRecord:
    if record.state not in UNDER_WAY:
        return record
    return _moved(record, ModelState.REJECTED, reason=reason.value, message=message, candidate=None)


def _crashed(record: ModelRecord, event: Crashed) -> ModelRecord:
    suspect = on_trial(record)
    if not suspect and (record.state is not ModelState.LIVE or record.previous is None):
        return record
    crashes = record.crashes + 1
    decisive = suspect and event.reason is Reason.HANG  # it served nobody until the deadline: once is enough
    if crashes < (MAX_CRASHES if suspect else MAX_SETTLED_CRASHES) and not decisive:
        return record.model_copy(update={"crashes": crashes})
    return _reverted(record, event.reason, f"the server failed {crashes} times with it, last: {event.message}"[:512])


def _reverted(record: ModelRecord, reason: Reason, message: str) -> ModelRecord:
    went_live = record.state is ModelState.LIVE
    bad = record.live if went_live else record.candidate
    return _moved(
        record,
        ModelState.REVERTED,
        reason=reason.value,
        message=message,
        candidate=None,
        live=record.previous if went_live else record.live,
        previous=None if went_live else record.previous,
        trial=None,
        trial_seconds=0.0,
        crashes=0,
        starts=0,
        quarantined=bad.assignment if bad else None,
        **(_NOTHING_COUNTED if went_live else {}),
    )


def _ticked(record: ModelRecord, seconds: float, now: datetime) -> ModelRecord:
    if record.trial is None:
        return record
    left = record.trial_seconds - seconds
    if left > 0:  # the wall clock may have been set meanwhile
        until = rfc3339(now + timedelta(seconds=left))
        return record.model_copy(
            update={"trial_seconds": left, "trial": record.trial.model_copy(update={"until": until})}
        )
    over: dict[str, object] = {"trial": None, "trial_seconds": 0.0, "crashes": 0, "starts": 0}
    if record.state is ModelState.LIVE:
        over |= {"reason": _serving(), "message": ""}
    return record.model_copy(update=over)


def _started(record: ModelRecord) -> ModelRecord:
    again = {"state": ModelState.FETCHED} if record.state in _RUNS else {}
    if not on_trial(record) and record.state not in _RUNS:
        return record
    starts = record.starts + 1
    if starts < MAX_STARTS:
        return record.model_copy(update={"starts": starts, **again})
    return _reverted(record, Reason.CRASH_LOOP, f"the agent ended {starts} times while it was on trial")


def _lost(record: ModelRecord, reason: Reason, message: str) -> ModelRecord:
    if record.live is None:
        return record
    broken = [record.live, *(held for held in record.broken if held != record.live)][:2]
    kept: dict[str, object] = {"live": record.previous, "previous": None, "candidate": None}
    kept |= {"trial": None, "trial_seconds": 0.0, **_NOTHING_COUNTED}
    if record.state is ModelState.REVERTED or record.state is ModelState.REJECTED:
        return record.model_copy(update={**kept, "broken": broken})
    return _moved(record, ModelState.PENDING, reason=reason.value, message=message, broken=broken, **kept)


def _found(record: ModelRecord, held: Held) -> ModelRecord:
    if record.live is not None or held not in record.broken or record.quarantined == held.assignment:
        return record
    return record.model_copy(update={"live": held, "broken": [other for other in record.broken if other != held]})


def _moved(record: ModelRecord, state: ModelState, **changes: object) -> ModelRecord:
    return record.model_copy(update={"state": state, "reason": "", "message": "", **changes})


def _serving() -> str:
    return Reason.SERVING.value
