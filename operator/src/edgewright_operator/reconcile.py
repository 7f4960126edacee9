"""One round of the operator: observe → decide → apply → one status write, then events. The same for every trigger."""

import asyncio
import random
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog

from edgewright_contract.compressedmodel import Source
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import AssignedModel, EdgeNodeSpec
from edgewright_operator import metrics, observe
from edgewright_operator.cluster import Cluster, ClusterError, Conflict
from edgewright_operator.decide import Decision, decide
from edgewright_operator.facts import ModelFacts, ReleaseFacts, SourceProblem
from edgewright_operator.mlflow import MlflowRegistry
from edgewright_operator.settings import Settings
from edgewright_operator.source import Gateway, resolve

log = structlog.get_logger()

Object = dict[str, Any]


@dataclass(slots=True)
class _Memory:
    """What one process remembers of a model: it may all be lost, and the rollout goes on from the status."""

    source: ReleaseFacts | SourceProblem | None = None
    trust: str | None = None
    asked: Source | None = None
    ask_at: float = float("-inf")
    wave: str = ""
    soaked: float = 0.0
    decided_at: float = 0.0
    soaking: bool = False


@dataclass(slots=True)
class Reconciler:
    """Runs rounds; everything with an effect is passed in."""

    cluster: Cluster
    registry: MlflowRegistry
    gateway: Gateway
    settings: Settings
    memories: dict[str, _Memory] = field(default_factory=dict)

    async def round(self, now: datetime, monotonic: float) -> None:
        """Observe everything once and act on every CompressedModel.

        Raises:
            ClusterError: the API server could not be read; nothing was decided.
        """
        models, edge_nodes, nodes, leases = await asyncio.gather(
            self.cluster.compressed_models(), self.cluster.edge_nodes(), self.cluster.nodes(), self.cluster.leases()
        )
        await self._mirror(nodes, edge_nodes, {lease["metadata"]["name"] for lease in leases})
        beats = observe.heartbeats(leases)
        metrics.begin_round(beats, [node["metadata"]["name"] for node in edge_nodes], now)
        keys = {f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in models}
        self.memories = {key: memory for key, memory in self.memories.items() if key in keys}
        for item in models:
            try:
                await self._model(item, edge_nodes, beats, now, monotonic)
            except Conflict as conflict:
                log.info("out of date, next round decides anew", conflict=str(conflict))
            except ClusterError as error:
                log.warning("round not finished", model=item["metadata"]["name"], error=str(error))

    async def _mirror(self, nodes: list[Object], edge_nodes: list[Object], leases: set[str]) -> None:
        """An EdgeNode for each labelled Node, none for a Node that is gone or was made anew under its name."""
        wanted = {node["metadata"]["name"]: node for node in nodes}
        present = {edge["metadata"]["name"]: edge for edge in edge_nodes}
        for name, edge in present.items():
            owners = {owner["uid"] for owner in edge["metadata"].get("ownerReferences") or []}
            node = wanted.get(name)
            if node is None or node["metadata"]["uid"] not in owners:
                await self.cluster.delete_edge_node(name)
            elif (labels := node["metadata"].get("labels") or {}) != (edge["metadata"].get("labels") or {}):
                await self.cluster.relabel(edge, labels)
        for name, node in wanted.items():
            if name not in present:
                await self.cluster.create_edge_node(node)
            if name not in leases:
                await self.cluster.create_heartbeat(node)

    async def _model(
        self, item: Object, edge_nodes: list[Object], beats: dict[str, datetime], now: datetime, monotonic: float
    ) -> None:
        model = observe.model_facts(item)
        if isinstance(model, SourceProblem):
            log.warning("unreadable object", name=item["metadata"]["name"], message=model.message)
            return
        memory = self.memories.setdefault(model.key, _Memory())
        await self._ask(model, memory, monotonic)
        assert memory.source is not None  # noqa: S101 - just asked
        allowed = observe.selector_of(
            await self.cluster.namespace(model.namespace), single_tenant=self.settings.single_tenant
        )
        chosen = [] if allowed is None else observe.selected(model, edge_nodes, allowed)
        facts = [
            observe.node_facts(node, model.key, beats, now, self.settings.stale_seconds) for node in chosen
        ]
        decision = decide(model, memory.source, facts, now, _soaked(model, memory, monotonic))
        _remember(memory, decision, monotonic)
        metrics.decided(model, facts, decision)
        condemned = decision.status.quarantined != model.status.quarantined
        if condemned:  # before nodes move away from the evidence: a kill in between must not forget it
            await self._report(item, model, decision)
        await self._apply(model, decision, {node["metadata"]["name"]: node for node in chosen}, memory.trust)
        if not condemned:
            await self._report(item, model, decision)
        await self._tell(item, decision, now)

    async def _ask(self, model: ModelFacts, memory: _Memory, monotonic: float) -> None:
        """MLflow is polled, ± 20 % so that many models do not ask at once."""
        if model.spec.source == memory.asked and monotonic < memory.ask_at:
            return
        memory.source, trust = await resolve(model.spec.source, self.registry, self.gateway)
        memory.trust = trust or memory.trust
        memory.asked = model.spec.source
        memory.ask_at = monotonic + self.settings.poll_seconds * random.uniform(0.8, 1.2)  # noqa: S311 - jitter

    async def _apply(
        self, model: ModelFacts, decision: Decision, nodes: dict[str, Object], trust: str | None
    ) -> None:
        for name, assigned in decision.assignments.items():
            node = nodes[name]
            spec = EdgeNodeSpec.model_validate(node.get("spec") or {})
            models = [entry for entry in spec.models if entry.name != model.key] + [assigned]
            written = await self.cluster.write_spec(node, _spec(models, trust or spec.trust))
            nodes[name].update(written)

    async def _report(self, item: Object, model: ModelFacts, decision: Decision) -> None:
        if decision.status != model.status:
            status = decision.status.model_dump(by_alias=True, exclude_none=True, mode="json")
            await self.cluster.write_status(item, status)

    async def _tell(self, item: Object, decision: Decision, now: datetime) -> None:
        for event in decision.events:
            if event.reason is Reason.GATE_FAILED:
                metrics.ROLLBACKS.labels(event.reason).inc()
            await self.cluster.create_event(item, event.reason, event.message, warning=event.warning, now=now)


def _spec(models: list[AssignedModel], trust: str | None) -> Object:
    dumped = [entry.model_dump(by_alias=True, exclude_none=True, mode="json") for entry in models]
    return {"models": dumped, **({"trust": trust} if trust else {})}


def _soaked(model: ModelFacts, memory: _Memory, monotonic: float) -> float:
    """Seconds that the wave has soaked: this process's own clock, and never less than the checkpoint."""
    wave, release = model.status.wave, model.status.release
    if wave is None or release is None:
        return 0.0
    identity = f"{release.manifest}/{wave.index}/{wave.since}"
    if identity != memory.wave:
        memory.wave, memory.soaked, memory.soaking = identity, float(wave.soak_elapsed_seconds), False
    if memory.soaking:
        memory.soaked += monotonic - memory.decided_at
    return memory.soaked


def _remember(memory: _Memory, decision: Decision, monotonic: float) -> None:
    memory.soaking, memory.decided_at = decision.soaking, monotonic
