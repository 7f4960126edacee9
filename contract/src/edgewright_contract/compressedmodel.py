"""CompressedModel: the wish of the platform team.

Cross-field rules are CEL in the schema, so that `kubectl apply` refuses a wrong object with a sentence.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from edgewright_contract.models import ATOMIC_LIST, ApiModel
from edgewright_contract.quantities import Duration, NodesOrPercent, Size
from edgewright_contract.release import Name, VariantName


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
    prometheus: Annotated[list[PrometheusCheck], Field(max_length=8, json_schema_extra=ATOMIC_LIST)] = []


class MaintenanceWindow(ApiModel):
    """When nodes may be moved, in local time of the zone."""

    days: Annotated[
        list[Annotated[str, Field(pattern="^(Mon|Tue|Wed|Thu|Fri|Sat|Sun)$")]],
        Field(min_length=1, max_length=7, json_schema_extra=ATOMIC_LIST),
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
    waves: Annotated[list[Wave], Field(min_length=1, max_length=16, json_schema_extra=ATOMIC_LIST)] = [
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
