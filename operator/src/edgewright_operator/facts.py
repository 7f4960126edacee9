"""What `observe` found, as frozen values: the only thing that `decide` sees besides the time."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgewright_contract.compressedmodel import CompressedModelSpec, DeletionPolicy
from edgewright_contract.compressedmodel_status import CompressedModelStatus
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import AssignedModel, Figures, Hardware, ModelState, ModelStatus
from edgewright_contract.release import Release

UNKNOWN_CLASS = "unknown"


@dataclass(frozen=True, slots=True)
class PrometheusAnswer:
    """What a PromQL check gave: one finite number, or none and why."""

    value: float | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One CompressedModel."""

    namespace: str
    name: str
    generation: int
    annotations: Mapping[str, str]
    spec: CompressedModelSpec
    status: CompressedModelStatus
    prometheus: Mapping[str, PrometheusAnswer] = field(default_factory=dict)
    """Answers to spec.rollout.gates.prometheus, by name; a check without one counts as not made."""

    @property
    def key(self) -> str:
        """`namespace/name`, as it stands in EdgeNode.spec."""
        return f"{self.namespace}/{self.name}"

    @property
    def removed_with_model(self) -> bool | None:
        """The deletion policy as it stands on a node's entry: Retain is left out."""
        return True if self.spec.deletion_policy is DeletionPolicy.REMOVE else None


@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """A release that the gateway verified."""

    release: Release
    manifest: str


@dataclass(frozen=True, slots=True)
class SourceProblem:
    """Why there is no release to roll out: nothing moves."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One EdgeNode, seen by one CompressedModel."""

    name: str
    labels: Mapping[str, str]
    reachable: bool
    hardware: Hardware | None
    assigned: AssignedModel | None
    status: ModelStatus | None
    seen: bool = True
    """Whether it ever gave a heartbeat."""
    selected: bool = True
    """False: it is assigned this model and no longer selected by it."""
    hardware_class: str = field(init=False, compare=False)
    """The class that latency is compared in; unknown until the agent reported."""
    _assigned: str | None = field(init=False, compare=False, repr=False)
    _served: str | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """What a decision asks of each node again and again is found once."""
        live = self.assigned.live if self.assigned else None
        served = self.status.live if self.status and self.status.state is ModelState.LIVE else None
        object.__setattr__(self, "hardware_class", self.hardware.class_ if self.hardware else UNKNOWN_CLASS)
        object.__setattr__(self, "_assigned", live.manifest if live else None)
        object.__setattr__(self, "_served", served.manifest if served else None)

    def assigned_manifest(self) -> str | None:
        """The manifest that the node should serve, if any."""
        return self._assigned

    def serves(self, manifest: str) -> bool:
        """Whether its agent says that this release is live."""
        return self._served == manifest

    def serves_as_assigned(self) -> bool:
        """Whether the very release and variant that it was given are live."""
        wish = self.assigned.live if self.assigned else None
        served = self.status.live if self.status else None
        return wish is not None and self.serves(wish.manifest) and served is not None and served.variant == wish.variant

    def failed(self, manifest: str) -> bool:
        """Whether its agent refused or reverted this release."""
        return (
            self.status is not None
            and self.status.state in (ModelState.REJECTED, ModelState.REVERTED)
            and self.status.target == manifest
        )

    def unavailable(self) -> bool:
        """Whether it is being moved, or has a release and serves none; a node that is offline is not counted."""
        manifest = self.assigned_manifest()
        if not self.reachable or manifest is None or self.serves_as_assigned():
            return False
        return not (self.failed(manifest) and self.status is not None and self.status.live is not None)

    def figures(self, manifest: str) -> Figures | None:
        """What it measured of this release, if it serves it and says so."""
        found = self.status.figures if self.status and self.serves(manifest) else None
        return found if found is not None and found.manifest in (None, manifest) else None
