"""What may happen to a model on a node: the only things that lifecycle.py answers to."""

from dataclasses import dataclass

from edgewright_agent.state import Held
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import Assignment


@dataclass(frozen=True)
class Assigned:
    """The EdgeNode names this release; `attempt` identifies assignment, permit, trust and hardware class together."""

    assignment: Assignment
    attempt: str


@dataclass(frozen=True)
class Fetched:
    """All files lie in the store."""

    candidate: Held


@dataclass(frozen=True)
class Verified:
    """The bytes on disk passed every check, under the trust document that `candidate` names."""

    candidate: Held


@dataclass(frozen=True)
class Tested:
    """The self-test answered as the pipeline did."""


@dataclass(frozen=True)
class Shadowed:
    """The server holds it beside the old one."""


@dataclass(frozen=True)
class Evidence:
    """What own readings said before a release went live, and what the release before it took; 0: unknown."""

    replayed: int
    previous_p95_microseconds: int = 0
    previous_rss_bytes: int = 0


@dataclass(frozen=True)
class Promoted:
    """The server answers with it."""

    trial_seconds: float
    evidence: Evidence


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
class Gone:
    """The candidate's files no longer lie whole in the store: they are fetched again."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Unloaded:
    """A new server process holds nothing yet."""


@dataclass(frozen=True)
class Crashed:
    """The server died or hung while it held this release."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Unhealthy:
    """What the server measures of the release on trial is beyond its limits."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Ticked:
    """So many seconds of the trial have passed by the monotonic clock."""

    seconds: float


@dataclass(frozen=True)
class Settled:
    """The server has been healthy for so long that earlier crashes no longer count."""


@dataclass(frozen=True)
class Started:
    """The agent starts; whether its former self ended as it was told to is not known."""


@dataclass(frozen=True)
class Stopped:
    """The agent ends as it was told to."""


@dataclass(frozen=True)
class Lost:
    """The live release cannot be verified or loaded from disk: the previous takes its place, nothing is forgotten."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Found:
    """What was lost verifies again and serves."""

    held: Held


Event = (
    Assigned
    | Fetched
    | Verified
    | Tested
    | Shadowed
    | Promoted
    | Refused
    | Delayed
    | Gone
    | Unloaded
    | Crashed
    | Unhealthy
    | Ticked
    | Settled
    | Started
    | Stopped
    | Lost
    | Found
)
