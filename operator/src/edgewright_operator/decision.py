"""What a round decides with and what it comes to: the values between `decide` and the half that writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from edgewright_contract.compressedmodel_status import CompressedModelStatus
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import AssignedModel
from edgewright_operator.facts import ModelFacts, NodeFacts
from edgewright_operator.rollback import PermitWish


@dataclass(frozen=True, slots=True)
class Event:
    """One Kubernetes Event about the CompressedModel."""

    reason: Reason
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Round:
    """What one decision sees: the selected nodes, the time, and the seconds that the wave has soaked."""

    model: ModelFacts
    nodes: Sequence[NodeFacts]
    now: datetime
    soaked: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write: the status, then assignments by node (only those that change), and events."""

    status: CompressedModelStatus
    assignments: Mapping[str, AssignedModel | None] = field(default_factory=dict)
    """None takes the model off the node."""
    events: tuple[Event, ...] = ()
    soaking: bool = False
    """Whether the time until the next decision counts as soak."""
    permits: Mapping[str, PermitWish] = field(default_factory=dict)
    """Permits to sign and to put into the assignment of that node."""
