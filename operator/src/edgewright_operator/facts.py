"""What `observe` found, as frozen values: the only thing that `decide` sees besides the time."""

from collections.abc import Mapping
from dataclasses import dataclass

from edgewright_contract.compressedmodel import CompressedModelSpec, CompressedModelStatus
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import AssignedModel, Hardware, ModelStatus
from edgewright_contract.release import Release


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One CompressedModel."""

    namespace: str
    name: str
    generation: int
    annotations: Mapping[str, str]
    spec: CompressedModelSpec
    status: CompressedModelStatus

    @property
    def key(self) -> str:
        """`namespace/name`, as it stands in EdgeNode.spec."""
        return f"{self.namespace}/{self.name}"


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

    @property
    def hardware_class(self) -> str:
        """The class that latency is compared in; unknown until the agent reported."""
        return self.hardware.class_ if self.hardware else "unknown"

    def assigned_manifest(self) -> str | None:
        """The manifest that the node should serve, if any."""
        return self.assigned.live.manifest if self.assigned and self.assigned.live else None

    def serves(self, manifest: str) -> bool:
        """Whether its agent says that this release is live."""
        return (
            self.status is not None
            and self.status.state == "Live"
            and self.status.live is not None
            and self.status.live.manifest == manifest
        )

    def failed(self, manifest: str) -> bool:
        """Whether its agent refused or reverted this release."""
        return (
            self.status is not None
            and self.status.state in ("Rejected", "Reverted")
            and self.status.target == manifest
        )
