"""The life of a model on a node as one pure function: record and event in, record out. Who acts stands in rollout.py.

Pending → Fetched → Verified → Tested → Shadow → Live, or Rejected / Reverted with a reason.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from edgewright_agent.state import Held, ModelRecord
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import Assignment, ModelState, Trial
from edgewright_contract.timestamps import rfc3339

MAX_CRASHES: Final = 2
"""A release that takes the server down so often during shadow or trial is reverted."""


@dataclass(frozen=True)
class Assigned:
    """The EdgeNode names this release; `attempt` identifies assignment, permit and trust together."""

    assignment: Assignment
    attempt: str


@dataclass(frozen=True)
class Fetched:
    """All files lie in the store."""

    candidate: Held


@dataclass(frozen=True)
class Verified:
    """The bytes on disk passed every check."""


@dataclass(frozen=True)
class Tested:
    """The self-test answered as the pipeline did."""


@dataclass(frozen=True)
class Shadowed:
    """The server holds it beside the old one."""


@dataclass(frozen=True)
class Promoted:
    """The server answers with it."""

    trial_seconds: float


@dataclass(frozen=True)
class Refused:
    """It must not be served here."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Delayed:
    """The step failed for now."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Crashed:
    """The server died or hung while it held this release."""

    reason: Reason


@dataclass(frozen=True)
class TrialOver:
    """The trial ended without a reason to revert: now it is the last known good."""


@dataclass(frozen=True)
class Lost:
    """The live release no longer verifies from disk: the previous takes its place and the wish is fetched anew."""

    reason: Reason
    message: str


Event = Assigned | Fetched | Verified | Tested | Shadowed | Promoted | Refused | Delayed | Crashed | TrialOver | Lost

_STEPS: Final = {
    Verified: (ModelState.FETCHED, ModelState.VERIFIED),
    Tested: (ModelState.VERIFIED, ModelState.TESTED),
    Shadowed: (ModelState.TESTED, ModelState.SHADOW),
}
_UNDER_WAY: Final = frozenset(
    {ModelState.PENDING, ModelState.FETCHED, ModelState.VERIFIED, ModelState.TESTED, ModelState.SHADOW}
)


def transition(record: ModelRecord, event: Event, now: datetime) -> ModelRecord:
    """The record after the event. An event that does not fit the state changes nothing, so a repeat is harmless."""
    match event:
        case Assigned():
            return _assigned(record, event)
        case Fetched(candidate):
            fits = record.state is ModelState.PENDING and record.target == candidate.assignment
            return _moved(record, ModelState.FETCHED, candidate=candidate) if fits else record
        case Verified() | Tested() | Shadowed():
            before, after = _STEPS[type(event)]
            return _moved(record, after) if record.state is before else record
        case Promoted(seconds):
            return _promoted(record, seconds, now)
        case Refused(reason, message):
            return _refused(record, reason, message)
        case Delayed(reason, message):
            under_way = record.state in _UNDER_WAY
            return record.model_copy(update={"reason": reason.value, "message": message}) if under_way else record
        case Crashed(reason):
            return _crashed(record, reason)
        case Lost(reason, message):
            kept = {"live": record.previous, "previous": None, "trial": None, "candidate": None}
            return _moved(record, ModelState.PENDING, reason=reason.value, message=message, **kept)
        case TrialOver():
            return record.model_copy(update={"trial": None, "crashes": 0}) if record.trial else record


def _assigned(record: ModelRecord, event: Assigned) -> ModelRecord:
    wish = event.assignment
    if record.live is not None and record.live.assignment == wish:
        if record.state is ModelState.LIVE and record.target == wish:
            return record
        return _moved(record, ModelState.LIVE, target=wish, attempt=event.attempt, candidate=None, reason=_serving())
    if record.quarantined == wish.manifest:
        return record
    if record.target == wish and record.attempt == event.attempt:
        return record
    if record.target == wish and record.state in _UNDER_WAY:
        return record.model_copy(update={"attempt": event.attempt})
    reason = Reason.DOWNLOADING.value
    fresh = {"target": wish, "attempt": event.attempt, "candidate": None, "quarantined": None, "crashes": 0}
    return _moved(record, ModelState.PENDING, reason=reason, **fresh)


def _promoted(record: ModelRecord, seconds: float, now: datetime) -> ModelRecord:
    if record.state is not ModelState.SHADOW or record.candidate is None:
        return record
    return _moved(
        record,
        ModelState.LIVE,
        reason=_serving(),
        live=record.candidate,
        previous=record.live or record.previous,
        candidate=None,
        trial=Trial(since=rfc3339(now), until=rfc3339(now + timedelta(seconds=seconds))),
    )


def _refused(record: ModelRecord, reason: Reason, message: str) -> ModelRecord:
    if record.state not in _UNDER_WAY:
        return record
    return _moved(record, ModelState.REJECTED, reason=reason.value, message=message, candidate=None)


def _crashed(record: ModelRecord, reason: Reason) -> ModelRecord:
    on_trial = record.state is ModelState.SHADOW or (record.state is ModelState.LIVE and record.trial is not None)
    if not on_trial:
        return record
    crashes = record.crashes + 1
    if crashes < MAX_CRASHES:
        back = {"state": ModelState.TESTED} if record.state is ModelState.SHADOW else {}
        return record.model_copy(update={"crashes": crashes, **back})
    bad = record.candidate if record.state is ModelState.SHADOW else record.live
    kept = record.live if record.state is ModelState.SHADOW else record.previous
    return _moved(
        record,
        ModelState.REVERTED,
        reason=reason.value,
        message=f"the server failed {crashes} times with it",
        candidate=None,
        live=kept,
        previous=record.previous if record.state is ModelState.SHADOW else None,
        trial=None,
        crashes=0,
        quarantined=bad.assignment.manifest if bad else None,
    )


def _moved(record: ModelRecord, state: ModelState, **changes: object) -> ModelRecord:
    return record.model_copy(update={"state": state, "reason": "", "message": "", **changes})


def _serving() -> str:
    return Reason.SERVING.value


def trial_is_over(record: ModelRecord, now: datetime) -> bool:
    """Whether the trial has run its time."""
    return record.trial is not None and now >= datetime.fromisoformat(record.trial.until)
