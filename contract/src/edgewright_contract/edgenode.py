"""EdgeNode: one object for each node.

`spec` is what it should run (operator), `status` what it runs and measures (its own agent).
It never holds a secret, a URL or household figures: whoever can watch one EdgeNode can watch all.
"""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from edgewright_contract.conditions import Condition
from edgewright_contract.digests import Digest
from edgewright_contract.models import ATOMIC_LIST, LIST_BY_NAME, LIST_BY_TYPE, ApiModel, Timestamp
from edgewright_contract.release import Name, VariantName

_ATOMIC: dict[str, Any] = {"x-kubernetes-map-type": "atomic"}

ModelKey = Annotated[str, Field(min_length=3, max_length=317, pattern=r"^[a-z0-9.-]+/[a-z0-9.-]+$")]
"""`namespace/name` of the CompressedModel."""
Whole = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Message = Annotated[str, Field(max_length=512)]


class ModelState(StrEnum):
    """The agent's life of a model."""

    PENDING = "Pending"
    FETCHED = "Fetched"
    VERIFIED = "Verified"
    TESTED = "Tested"
    SHADOW = "Shadow"
    LIVE = "Live"
    REJECTED = "Rejected"
    REVERTED = "Reverted"


class Assignment(ApiModel):
    """The release and variant that a node should serve."""

    version: Annotated[int, Field(ge=1)]
    sequence: Annotated[int, Field(ge=1)]
    manifest: Digest
    variant: VariantName


class BenchmarkRequest(ApiModel):
    """Variants that the node should measure in idle time."""

    manifest: Digest
    variants: Annotated[list[VariantName], Field(min_length=1, max_length=8, json_schema_extra=ATOMIC_LIST)]


class AssignedModel(ApiModel):
    """What one CompressedModel wants of this node."""

    name: ModelKey
    registered_model: Name
    live: Annotated[Assignment | None, Field(json_schema_extra=_ATOMIC)] = None
    benchmark: Annotated[BenchmarkRequest | None, Field(json_schema_extra=_ATOMIC)] = None
    permit: Annotated[str | None, Field(max_length=4096)] = None
    since: Timestamp | None = None
    """When `live` was last changed."""
    removed_with_model: bool | None = None
    """True: deletionPolicy is Remove, so the entry goes when its CompressedModel does."""
    orphaned: bool | None = None
    """True: its CompressedModel was deleted with Retain; the node goes on serving."""


class EdgeNodeSpec(ApiModel):
    """What the node should run: written by the operator only."""

    trust: Digest | None = None
    """Digest of the current trust.json."""
    models: Annotated[list[AssignedModel], Field(max_length=16, json_schema_extra=LIST_BY_NAME)] = []


class Hardware(ApiModel):
    """What makes latency comparable."""

    class_: Annotated[str, Field(alias="class", min_length=1, max_length=63)]
    arch: Annotated[str, Field(max_length=16)]
    cpu: Annotated[str, Field(max_length=128)]
    flags: Annotated[
        list[Annotated[str, Field(max_length=24)]], Field(max_length=32, json_schema_extra=ATOMIC_LIST)
    ] = []
    cores: Annotated[int, Field(ge=1)]
    memory_bytes: Whole
    agent_version: Annotated[str, Field(max_length=32)]
    runtime_version: Annotated[str, Field(max_length=32)]


class Trial(ApiModel):
    """The time in which a model that went live may still be reverted by the node itself."""

    since: Timestamp
    until: Timestamp


class Served(ApiModel):
    """A release that the node serves or served."""

    version: Annotated[int, Field(ge=1)]
    manifest: Digest
    variant: VariantName


class Benchmark(ApiModel):
    """One variant measured on this node."""

    digest: Digest
    runtime_version: Annotated[str, Field(max_length=32)]
    p50_microseconds: Whole
    p95_microseconds: Whole
    rss_bytes: Whole
    at: Timestamp


class Figures(ApiModel):
    """What the node measured of the model that it serves since it was loaded: counts, latencies and ratios only.

    Figures of a release that is not served are not reported; a counter never falls while a release is served.
    """

    manifest: Digest | None = None
    """The release that they are about; none: the one that is live."""
    samples: Whole = 0
    """Windows, whoever sent them."""
    effective_samples: Whole = 0
    """Windows of own readings that do not overlap, the replayed ones included."""
    replayed: Whole = 0
    """How many of the effective samples came from the ring of own readings."""
    errors: Whole = 0
    """Windows without a finite answer."""
    p50_microseconds: Whole = 0
    p95_microseconds: Whole = 0
    agreement: Share | None = None
    """Share of windows on which this and the former model said the same; none: never compared."""
    unknown_ratio: Share | None = None
    """Share of own windows without a known appliance; none: the release has no reference."""
    drift: Annotated[float, Field(ge=0)] | None = None
    """How far own windows and answers are from what the release was validated on; none: too few, or no reference."""
    rss_bytes: Whole = 0
    """Resident memory of the server."""
    previous_p95_microseconds: Whole = 0
    """p95 of the release before on this node; 0: not known."""
    previous_rss_bytes: Whole = 0
    """Memory of the server with the release before; 0: not known."""
    since: Timestamp | None = None


class ModelStatus(ApiModel):
    """How far the node is with one model."""

    name: ModelKey
    state: ModelState
    reason: Annotated[str, Field(max_length=64)] = ""
    message: Message = ""
    target: Digest | None = None
    """Manifest that the state is about."""
    trial: Annotated[Trial | None, Field(json_schema_extra=_ATOMIC)] = None
    live: Annotated[Served | None, Field(json_schema_extra=_ATOMIC)] = None
    previous: Annotated[Served | None, Field(json_schema_extra=_ATOMIC)] = None
    benchmark: Annotated[list[Benchmark], Field(max_length=8, json_schema_extra=ATOMIC_LIST)] = []
    figures: Annotated[Figures | None, Field(json_schema_extra=_ATOMIC)] = None


class EdgeNodeStatus(ApiModel):
    """What the node runs and measures: written by its own agent only."""

    hardware: Annotated[Hardware | None, Field(json_schema_extra=_ATOMIC)] = None
    models: Annotated[list[ModelStatus], Field(max_length=16, json_schema_extra=LIST_BY_NAME)] = []
    conditions: Annotated[list[Condition], Field(max_length=8, json_schema_extra=LIST_BY_TYPE)] = []
