"""The status of a CompressedModel: where its rollout stands, what was measured, and how the last ones ended."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from edgewright_contract.conditions import Condition
from edgewright_contract.digests import Digest
from edgewright_contract.edgenode import Message
from edgewright_contract.models import ATOMIC_LIST, LIST_BY_TYPE, ApiModel, Timestamp
from edgewright_contract.release import VariantName


class Verdict(StrEnum):
    """Of a gate and of each of its checks."""

    PASS = "Pass"  # noqa: S105 - a verdict, not a password
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"
    ERROR = "Error"


class Outcome(StrEnum):
    """How a rollout ended."""

    PROMOTED = "Promoted"
    FAILED = "Failed"
    SUPERSEDED = "Superseded"


class ReleaseRef(ApiModel):
    """Names one release."""

    version: Annotated[int, Field(ge=1)]
    sequence: Annotated[int, Field(ge=1)]
    manifest: Digest


class ClassVariant(ApiModel):
    """What a hardware class ran of a release."""

    name: Annotated[str, Field(max_length=63)]
    variant: VariantName


class Quarantined(ApiModel):
    """A manifest that failed and will not be rolled out again until it is freed."""

    manifest: Digest
    reason: Annotated[str, Field(max_length=64)]
    since: Timestamp


class Candidate(ApiModel):
    """One variant as nodes of the class measured it: the median over those nodes."""

    variant: VariantName
    p50_microseconds: Annotated[int, Field(ge=0)]
    p95_microseconds: Annotated[int, Field(ge=0)]


class HardwareClassStatus(ApiModel):
    """The choice for one hardware class."""

    name: Annotated[str, Field(max_length=63)]
    nodes: Annotated[int, Field(ge=0)]
    variant: VariantName | None = None
    reason: Message = ""
    p95_milliseconds: Annotated[float, Field(ge=0)] | None = None
    candidates: Annotated[list[Candidate], Field(max_length=8, json_schema_extra=ATOMIC_LIST)] = []
    """What was measured of this release on this class; empty where nothing was."""
    measuring_since: Timestamp | None = None
    """Since when the class is asked to measure and has not."""
    baseline_p95_microseconds: Annotated[int, Field(ge=0)] | None = None
    """Median p95 of the class under the release before."""
    baseline_rss_bytes: Annotated[int, Field(ge=0)] | None = None


class WaveStatus(ApiModel):
    """Where the rollout stands. `index` counts from 0; `size` is the number that no exposure may exceed."""

    index: Annotated[int, Field(ge=0)]
    of: Annotated[int, Field(ge=1)]
    size: Annotated[int, Field(ge=0)]
    exposed: Annotated[int, Field(ge=0)]
    since: Timestamp
    soak_elapsed_seconds: Annotated[int, Field(ge=0)] = 0


class Counts(ApiModel):
    """The selected nodes, counted."""

    total: Annotated[int, Field(ge=0)] = 0
    live: Annotated[int, Field(ge=0)] = 0
    updating: Annotated[int, Field(ge=0)] = 0
    failed: Annotated[int, Field(ge=0)] = 0
    offline: Annotated[int, Field(ge=0)] = 0
    """No heartbeat for three intervals."""
    never_seen: Annotated[int, Field(ge=0)] = 0
    """No heartbeat yet."""


class WorstNode(ApiModel):
    """One of the nodes that need a look."""

    name: Annotated[str, Field(max_length=253)]
    state: Annotated[str, Field(max_length=32)]
    reason: Annotated[str, Field(max_length=64)] = ""
    message: Annotated[str, Field(max_length=256)] = ""


class GateCheck(ApiModel):
    """One measured value against its limit."""

    name: Annotated[str, Field(max_length=32)]
    value: float | None = None
    limit: float
    samples: Annotated[int, Field(ge=0)]
    verdict: Verdict
    message: Annotated[str, Field(max_length=256)] = ""


class GateStatus(ApiModel):
    """The gate of the current wave."""

    verdict: Verdict
    at: Timestamp | None = None
    """When the checks were written last; they are written anew once an interval, or when the verdict changes."""
    checks: Annotated[list[GateCheck], Field(max_length=16, json_schema_extra=ATOMIC_LIST)] = []


class Paused(ApiModel):
    """The rollout waits for a person."""

    reason: Annotated[str, Field(max_length=64)]
    message: Message = ""
    since: Timestamp
    generation: Annotated[int, Field(ge=0)]
    """Of the spec that it paused under; an edit goes on."""


class HistoryEntry(ApiModel):
    """One ended rollout."""

    version: Annotated[int, Field(ge=1)]
    sequence: Annotated[int, Field(ge=1)] | None = None
    """Of that release, so that nodes can be sent back to it; none where an older operator wrote the entry."""
    manifest: Digest
    started: Timestamp
    ended: Timestamp
    outcome: Outcome
    reason: Annotated[str, Field(max_length=64)]


class CompressedModelStatus(ApiModel):
    """Bounded whatever the fleet's size: counts and worst nodes, never a map of all nodes."""

    observed_generation: Annotated[int, Field(ge=0)] = 0
    release: ReleaseRef | None = None
    started: Timestamp | None = None
    """When the rollout of `release` began."""
    last_good: ReleaseRef | None = None
    last_good_variants: Annotated[list[ClassVariant], Field(max_length=20, json_schema_extra=ATOMIC_LIST)] = []
    """What each class runs of `last_good`: the way back needs it where no node remembers."""
    quarantined: Annotated[list[Quarantined], Field(max_length=50, json_schema_extra=ATOMIC_LIST)] = []
    hardware_classes: Annotated[list[HardwareClassStatus], Field(max_length=20, json_schema_extra=ATOMIC_LIST)] = []
    wave: WaveStatus | None = None
    counts: Counts | None = None
    worst_nodes: Annotated[list[WorstNode], Field(max_length=10, json_schema_extra=ATOMIC_LIST)] = []
    gate: GateStatus | None = None
    paused: Paused | None = None
    history: Annotated[list[HistoryEntry], Field(max_length=10, json_schema_extra=ATOMIC_LIST)] = []
    conditions: Annotated[list[Condition], Field(max_length=8, json_schema_extra=LIST_BY_TYPE)] = []
