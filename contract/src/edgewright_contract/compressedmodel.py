"""CompressedModel: the wish of the platform team.

Cross-field rules are CEL in the schema, so that `kubectl apply` refuses a wrong object with a sentence.
"""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from edgewright_contract.conditions import Condition
from edgewright_contract.digests import Digest
from edgewright_contract.edgenode import Message
from edgewright_contract.models import ApiModel, Timestamp
from edgewright_contract.quantities import Duration, NodesOrPercent, Size
from edgewright_contract.release import Name, VariantName

_ATOMIC_LIST: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}
_BY_TYPE: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}


def _rules(*rules: tuple[str, str]) -> ConfigDict:
    return ConfigDict(
        json_schema_extra={"x-kubernetes-validations": [{"rule": rule, "message": text} for rule, text in rules]}
    )


class Objective(StrEnum):
    """What is best among the variants that meet the constraints."""

    LATENCY = "Latency"
    SIZE = "Size"
    ACCURACY = "Accuracy"


class OnFailure(StrEnum):
    """What a failed gate leads to."""

    ROLLBACK = "Rollback"
    PAUSE = "Pause"


class DeletionPolicy(StrEnum):
    """What happens on the nodes when the object is deleted."""

    RETAIN = "Retain"
    REMOVE = "Remove"


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


class Source(ApiModel):
    """Which release: the alias of a registered model, or one version of it."""

    model_config = _rules(
        ("has(self.alias) != has(self.version)", "spec.source: set exactly one of alias and version"),
    )
    registered_model: Name
    alias: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", max_length=63)] | None = None
    version: Annotated[int, Field(ge=1)] | None = None


class NodeSelector(ApiModel):
    """Selects EdgeNodes by their labels, which mirror the Node's."""

    match_labels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=16)] = {}


class Constraints(ApiModel):
    """Limits that the chosen variant must meet on each hardware class."""

    min_macro_f1: Annotated[float | None, Field(alias="minMacroF1", ge=0, le=1)] = None
    max_macro_f1_drop: Annotated[float | None, Field(alias="maxMacroF1Drop", ge=0, le=1)] = None
    max_p95: Annotated[Duration | None, Field(alias="maxP95")] = None
    max_size: Size | None = None


class Selection(ApiModel):
    """How a variant is chosen."""

    objective: Objective = Objective.LATENCY
    constraints: Constraints = Constraints()
    candidates: Annotated[int, Field(ge=1, le=8)] = 4
    """How many of the Pareto front each hardware class measures on a real node."""
    deadline: Duration = "5m"
    """How long a hardware class is given to measure; then it runs the FP32 parent until it has measured."""
    variant: VariantName | None = None
    """Pins one variant; nothing is measured then."""


class Wave(ApiModel):
    """A cumulative target: so many nodes, or so many percent of the reachable ones."""

    model_config = _rules(("has(self.nodes) != has(self.percent)", "each wave sets exactly one of nodes and percent"))
    nodes: Annotated[int, Field(ge=1, le=100_000)] | None = None
    percent: Annotated[int, Field(ge=1, le=100)] | None = None


class PrometheusCheck(ApiModel):
    """A PromQL query that must answer one number at most `max`."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$", max_length=32)]
    query: Annotated[str, Field(min_length=1, max_length=1024)]
    max: float


class Gates(ApiModel):
    """What must hold between two waves."""

    interval: Duration = "60s"
    """How often exposed nodes and their controls write their figures in a wave."""
    deadline: Duration = "1h"
    """How long a wave that has soaked may wait for evidence; then the rollout pauses."""
    min_samples: Annotated[int, Field(ge=1, le=1_000_000)] = 40
    """Effective samples over the wave; of more than one node none counts for more than its share of a majority.

    Two days of readings give one node 42 windows of 4,096 s that do not overlap."""
    max_error_rate: Annotated[float, Field(ge=0, le=1)] = 0.01
    max_p95_ratio: Annotated[float, Field(alias="maxP95Ratio", ge=1, le=100)] = 1.2
    """Against the release before on the same node, else against nodes of the same class that still serve it."""
    p95_floor: Annotated[Duration, Field(alias="p95Floor")] = "1ms"
    """A p95 below it counts as it, on both sides of maxP95Ratio: a ratio of microseconds is noise."""
    min_agreement: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Share of windows on which old and new model say the same; 0 does not ask."""
    max_unknown_ratio: Annotated[float | None, Field(ge=0, le=1)] = None
    max_drift: Annotated[float | None, Field(ge=0)] = None
    max_rss_ratio: Annotated[float, Field(ge=1, le=100)] = 1.5
    """Memory of the server, compared as maxP95Ratio is."""
    prometheus: Annotated[list[PrometheusCheck], Field(max_length=8, json_schema_extra=_ATOMIC_LIST)] = []


class MaintenanceWindow(ApiModel):
    """When nodes may be moved, in local time of the zone."""

    days: Annotated[
        list[Annotated[str, Field(pattern="^(Mon|Tue|Wed|Thu|Fri|Sat|Sun)$")]],
        Field(min_length=1, max_length=7, json_schema_extra=_ATOMIC_LIST),
    ]
    start: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    end: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    time_zone: Annotated[str, Field(max_length=64)] = "Etc/UTC"


class Rollout(ApiModel):
    """By which waves, behind which gates."""

    model_config = _rules(
        (
            "!has(self.waves) || (size(self.waves) > 0 && has(self.waves[size(self.waves) - 1].percent)"
            " && self.waves[size(self.waves) - 1].percent == 100)",
            "spec.rollout.waves: the last wave must be {percent: 100}",
        ),
    )
    waves: Annotated[list[Wave], Field(min_length=1, max_length=16, json_schema_extra=_ATOMIC_LIST)] = [
        Wave(nodes=1),
        Wave(percent=10),
        Wave(percent=50),
        Wave(percent=100),
    ]
    soak: Duration = "10m"
    max_unavailable: NodesOrPercent = "10%"
    node_deadline: Duration = "30m"
    gates: Gates = Gates()
    on_failure: OnFailure = OnFailure.ROLLBACK
    approval: bool = False
    """Each wave waits for an approval. Deleting the object and creating it anew without this is a way around it, which
    the Namespace annotation edgewright.dev/require-approval closes."""
    window: MaintenanceWindow | None = None


class CompressedModelSpec(ApiModel):
    """Which registered model, on which nodes, under which limits, by which waves and gates."""

    model_config = _rules(
        (
            "self.source.registeredModel == oldSelf.source.registeredModel",
            "spec.source.registeredModel cannot change: create another CompressedModel",
        ),
    )
    source: Source
    node_selector: NodeSelector = NodeSelector()
    selection: Selection = Selection()
    rollout: Rollout = Rollout()
    suspend: bool = False
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN


class ReleaseRef(ApiModel):
    """Names one release."""

    version: Annotated[int, Field(ge=1)]
    sequence: Annotated[int, Field(ge=1)]
    manifest: Digest


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
    candidates: Annotated[list[Candidate], Field(max_length=8, json_schema_extra=_ATOMIC_LIST)] = []
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
    checks: Annotated[list[GateCheck], Field(max_length=16, json_schema_extra=_ATOMIC_LIST)] = []


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
    quarantined: Annotated[list[Quarantined], Field(max_length=50, json_schema_extra=_ATOMIC_LIST)] = []
    hardware_classes: Annotated[list[HardwareClassStatus], Field(max_length=20, json_schema_extra=_ATOMIC_LIST)] = []
    wave: WaveStatus | None = None
    counts: Counts | None = None
    worst_nodes: Annotated[list[WorstNode], Field(max_length=10, json_schema_extra=_ATOMIC_LIST)] = []
    gate: GateStatus | None = None
    paused: Paused | None = None
    history: Annotated[list[HistoryEntry], Field(max_length=10, json_schema_extra=_ATOMIC_LIST)] = []
    conditions: Annotated[list[Condition], Field(max_length=8, json_schema_extra=_BY_TYPE)] = []
