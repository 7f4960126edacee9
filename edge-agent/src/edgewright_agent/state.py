"""What the supervisor remembers over a restart: state.json as types; all of it can be verified again."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from edgewright_contract.digests import Digest
from edgewright_contract.edgenode import Assignment, Benchmark, ModelKey, ModelState, Served, Trial
from edgewright_contract.release import Name


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Held(_Stored):
    """A release and variant whose verified files lie in the store."""

    assignment: Assignment
    release: Digest
    """Of release.json."""
    golden: Digest
    file: Digest
    """Of the variant's ONNX file."""

    def blobs(self) -> set[str]:
        """Digests that the store must keep for this."""
        return {self.assignment.manifest, self.release, self.golden, self.file}

    def served(self) -> Served:
        """As it stands in EdgeNode.status."""
        wish = self.assignment
        return Served(version=wish.version, manifest=wish.manifest, variant=wish.variant)


class ModelRecord(_Stored):
    """How far this node is with one model."""

    name: ModelKey
    registered_model: Name
    state: ModelState = ModelState.PENDING
    reason: str = ""
    message: str = ""
    target: Assignment | None = None
    attempt: str = ""
    """What the last attempt was made with (assignment, permit, trust): a refusal holds while this stays the same."""
    candidate: Held | None = None
    live: Held | None = None
    previous: Held | None = None
    trial: Trial | None = None
    crashes: Annotated[int, Field(ge=0)] = 0
    """Crashes of the server since the candidate was loaded."""
    quarantined: str | None = None
    """Manifest that this node reverted; not tried again until another release is assigned."""
    benchmark: list[Benchmark] = []

    def blobs(self) -> set[str]:
        """Digests that the store must keep."""
        return {digest for held in (self.candidate, self.live, self.previous) if held for digest in held.blobs()}


class AgentState(_Stored):
    """The whole of state.json."""

    trust: Digest | None = None
    trust_sequence: Annotated[int, Field(ge=0)] = 0
    models: dict[str, ModelRecord] = {}

    def blobs(self) -> set[str]:
        """Digests that the store must keep."""
        kept = {digest for record in self.models.values() for digest in record.blobs()}
        return kept | ({self.trust} if self.trust else set())

    def with_model(self, record: ModelRecord) -> "AgentState":
        """The state with this record in the place of its former self."""
        return self.model_copy(update={"models": {**self.models, record.name: record}})
