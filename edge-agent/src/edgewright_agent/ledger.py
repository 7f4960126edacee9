"""What is remembered, and its copy on disk: every event goes through here, so memory and disk cannot drift unseen.

A disk that refuses stops no serving: memory goes on, the problem is told, and the next change tries again.
"""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

from edgewright_agent import events, lifecycle
from edgewright_agent.refusal import Delay, of_disk
from edgewright_agent.state import AgentState, Floors, ModelRecord
from edgewright_agent.store import Store
from edgewright_contract.edgenode import AssignedModel, ModelState

_LOG = logging.getLogger(__name__)
SETTLED: Final = frozenset(ModelState) - lifecycle.UNDER_WAY
"""States in which nothing is under way."""
BUILD_SECONDS: Final = 1_767_225_600
"""2026-01-01: a clock that shows less has never been set."""


class Ledger:
    """The records of all models, with what is saved of them."""

    def __init__(self, store: Store, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now
        self._saved = AgentState()
        self.state = AgentState()
        self.problem: Delay | None = None
        """Why the last change is not on disk yet."""

    def load(self) -> None:
        """Read what was saved.

        Raises:
            StateError: it cannot be read, and nothing whole is beside it.
        """
        self.state = self._saved = self._store.load()

    def now(self) -> datetime:
        """The wall clock."""
        return self._now()

    def signed_now(self) -> int:
        """UTC seconds for expiry: the wall clock, but never before the newest signature that was accepted."""
        return max(int(self._now().timestamp()), self.state.floors.signed, BUILD_SECONDS)

    def record(self, name: str) -> ModelRecord:
        """The record of this model."""
        return self.state.models[name]

    def names(self) -> list[str]:
        """Of all models."""
        return sorted(self.state.models)

    def open(self, wish: AssignedModel) -> None:
        """Have a record for the model."""
        if wish.name not in self.state.models:
            self.put(ModelRecord(name=wish.name, registered_model=wish.registered_model))

    def apply(self, name: str, event: events.Event) -> ModelRecord:
        """Move a record on; what came of it is saved before this returns, if the disk lets it."""
        before = self.record(name)
        after = lifecycle.transition(before, event, self._now())
        if after == before:
            return after
        if after.state is not before.state:
            _LOG.info("%s: %s to %s %s %s", name, before.state, after.state, after.reason, after.message)
        state = self.state.with_model(after)
        if isinstance(event, events.Promoted) and after.live is not None:
            floors = _raised(state.floors, after.registered_model, after.live.assignment.sequence)
            state = state.model_copy(update={"floors": floors})
        self.save(state)
        return after

    def put(self, record: ModelRecord) -> None:
        """Replace a record outside its life: measurements, or a new one."""
        self.save(self.state.with_model(record))

    def drop(self, name: str) -> None:
        """Forget a model. What it had reached as a sequence stays."""
        rest = {key: record for key, record in self.state.models.items() if key != name}
        self.save(self.state.model_copy(update={"models": rest}))

    def trust(self, digest: str, sequence: int) -> None:
        """Believe this trust document from now on."""
        floors = self.state.floors.model_copy(update={"trust": sequence})
        self.save(self.state.model_copy(update={"trust": digest, "floors": floors}))

    def save(self, state: AgentState) -> None:
        """Change memory, and the disk if it lets itself be changed."""
        self.state = state
        self.retry()

    def retry(self) -> None:
        """Bring the disk up to memory."""
        if self._saved == self.state:
            return
        try:
            self._store.save(self.state)
        except OSError as error:
            self.problem = of_disk(error)
            _LOG.error("state.json: %s", self.problem.message)
            return
        self._saved, self.problem = self.state, None

    def collect(self, extra: set[str]) -> None:
        """Remove blobs that neither memory nor disk nor `extra` names; nothing while a model is under way.

        Raises:
            OSError: the disk refuses.
        """
        if all(record.state in SETTLED for record in self.state.models.values()):
            self._store.collect(self.state.blobs() | self._saved.blobs() | extra)


def _raised(floors: Floors, registered_model: str, sequence: int) -> Floors:
    models = {**floors.models, registered_model: sequence}
    return floors.model_copy(update={"models": models, "signed": max(floors.signed, sequence)})
