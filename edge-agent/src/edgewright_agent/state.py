"""What the supervisor remembers over a restart: state.json as types; all of it can be verified again."""

from itertools import zip_longest
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
    trust: Digest
    """Of the trust document under which it was let in; a later one that drops the key stops new installs only."""

    def blobs(self) -> set[str]:
        """Digests that the store must keep for this."""
        return {self.assignment.manifest, self.release, self.golden, self.file, self.trust}

    def served(self) -> Served:
        """As it stands in EdgeNode.status."""
        wish = self.assignment
        return Served(version=wish.version, manifest=wish.manifest, variant=wish.variant)


Count = Annotated[int, Field(ge=0)]


class Counted(_Stored):
    """What was counted of a release in one variant since it went live, over all servers and agents that have ended."""

    manifest: Digest
    variant: str = ""
    samples: Count = 0
    effective_samples: Count = 0
    replayed: Count = 0
    errors: Count = 0
    compared: Count = 0
    agreed: Count = 0
    unknown: Count = 0
    """Windows of own readings without a known appliance."""
    spread: dict[str, list[Count]] = {}
    """Histograms of the same windows, by what is compared with the release's reference."""

    def plus(self, more: "Counted | None") -> "Counted":
        """Both together, if they are about the same variant of the same release."""
        if more is None or (more.manifest, more.variant) != (self.manifest, self.variant):
            return self
        counts = {name: getattr(self, name) + getattr(more, name) for name in self._counts()}
        names = self.spread.keys() | more.spread.keys()
        spread = {name: _sum(self.spread.get(name, []), more.spread.get(name, [])) for name in sorted(names)}
        return self.model_copy(update={**counts, "spread": spread})

    @classmethod
    def _counts(cls) -> list[str]:
        return [name for name in cls.model_fields if name not in ("manifest", "variant", "spread")]


def _sum(one: list[int], other: list[int]) -> list[int]:
    """Two histograms together; one that counts nothing yet may have no bins."""
    return [left + right for left, right in zip_longest(one, other, fillvalue=0)]


class ModelRecord(_Stored):
    """How far this node is with one model."""

    name: ModelKey
    registered_model: Name
    state: ModelState = ModelState.PENDING
    reason: str = ""
    message: str = ""
    target: Assignment | None = None
    attempt: str = ""
    """What the last attempt was made with (assignment, permit, trust, class): a refusal holds while it stays so."""
    candidate: Held | None = None
    live: Held | None = None
    previous: Held | None = None
    broken: Annotated[list[Held], Field(max_length=2)] = []
    """Was live and could not be verified or loaded from disk; kept, and tried again while nothing serves."""
    live_since: str | None = None
    """When `live` was promoted, RFC 3339."""
    counted: Counted | None = None
    """Of `live`, as it was told last."""
    previous_p95_microseconds: Count = 0
    """Of the release before, measured beside this one; 0: not known."""
    previous_rss_bytes: Count = 0
    trial: Trial | None = None
    trial_seconds: Annotated[float, Field(ge=0)] = 0.0
    """What is left of the trial by the monotonic clock, at the last checkpoint."""
    crashes: Annotated[int, Field(ge=0)] = 0
    """Crashes of the server since the candidate was loaded, or in the last healthy time of a settled release."""
    starts: Annotated[int, Field(ge=0)] = 0
    """Starts of the agent without a clean end while this was on trial."""
    quarantined: Assignment | None = None
    """What this node reverted; not tried again until something else is assigned."""
    benchmark: list[Benchmark] = []

    def blobs(self) -> set[str]:
        """Digests that the store must keep."""
        held = (self.candidate, self.live, self.previous, *self.broken)
        return {digest for one in held if one for digest in one.blobs()}


class Floors(_Stored):
    """The newest that this node has ever accepted: what may not be gone below without a permit."""

    trust: Annotated[int, Field(ge=0)] = 0
    """Sequence of the trust document."""
    signed: Annotated[int, Field(ge=0)] = 0
    """Newest UTC second at which an accepted release was signed: the wall clock is never believed to be earlier."""
    models: dict[str, int] = {}
    """Registered model → sequence that went live last."""

    def raised(self, other: "Floors") -> "Floors":
        """The higher of each."""
        models = {**self.models}
        for name, sequence in other.models.items():
            models.setdefault(name, sequence)  # state.json knows of a permitted step back, the second file may not
        return Floors(trust=max(self.trust, other.trust), signed=max(self.signed, other.signed), models=models)


class AgentState(_Stored):
    """The whole of state.json."""

    trust: Digest | None = None
    models: dict[str, ModelRecord] = {}
    floors: Floors = Floors()

    def blobs(self) -> set[str]:
        """Digests that the store must keep."""
        kept = {digest for record in self.models.values() for digest in record.blobs()}
        return kept | ({self.trust} if self.trust else set())

    def with_model(self, record: ModelRecord) -> "AgentState":
        """The state with this record in the place of its former self."""
        return self.model_copy(update={"models": {**self.models, record.name: record}})
