"""Asks each CompressedModel's source in the background, so that a slow registry delays no rollback."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from edgewright_contract.compressedmodel import Source
from edgewright_contract.conditions import Reason
from edgewright_operator.facts import ReleaseFacts, SourceProblem
from edgewright_operator.mlflow import MlflowRegistry
from edgewright_operator.source import Gateway, resolve

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Found:
    """What a source answered last; `trust` is the digest of the trust.json that the gateway serves."""

    asked: Source
    found: ReleaseFacts | SourceProblem
    trust: str | None


@dataclass(slots=True)
class Polling:
    """`answered(key)` is called after each answer that says something new."""

    registry: MlflowRegistry
    gateway: Gateway
    seconds: float
    group: asyncio.TaskGroup
    answered: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    uniform: Callable[[float, float], float] = random.uniform
    answers: dict[str, Found] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    asking: dict[str, tuple[Source, asyncio.Task[None]]] = field(default_factory=dict)

    def latest(self, key: str, source: Source) -> Found | None:
        """The last answer about this very source, if any; asks anew in the background where that is due."""
        known = self.answers.get(key)
        fitting = known if known is not None and known.asked == source else None
        if key in self.asking and self.asking[key][0] != source:
            self.asking.pop(key)[1].cancel()
        if key not in self.asking and (fitting is None or self.clock() >= self.due.get(key, 0.0)):
            self.asking[key] = (source, self.group.create_task(self._ask(key, source), name=f"ask {key}"))
        return fitting

    def forget(self, key: str) -> None:
        """The model is gone."""
        self.answers.pop(key, None)
        self.due.pop(key, None)
        if key in self.asking:
            self.asking.pop(key)[1].cancel()

    async def _ask(self, key: str, source: Source) -> None:
        try:
            found, trust = await resolve(source, self.registry, self.gateway)
        except Exception as error:  # a fault in reading an answer is a source that cannot be used, not our end
            log.exception("source not understood", key=key)
            found, trust = SourceProblem(Reason.SOURCE_UNAVAILABLE, f"{type(error).__name__}: {error}"[:512]), None
        before = self.answers.get(key)
        self.answers[key] = Found(source, found, trust or (before.trust if before else None))
        self.due[key] = self.clock() + self.seconds * self.uniform(0.8, 1.2)  # many models do not ask at once
        self.asking.pop(key, None)
        if self.answers[key] != before:
            self.answered(key)
