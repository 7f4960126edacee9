"""One round of one CompressedModel: observe → decide → status → events → nodes. The same for every trigger.

The status goes first: it claims the wave (and condemns a manifest) before any node is exposed on its account, so that
a kill between any two writes leaves no exposure that the status does not allow. And nothing is decided on an object
that a write of ours may have changed without our knowing: it is read first (docs/decisions/0052).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from edgewright_contract.compressedmodel_status import CompressedModelStatus
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import AssignedModel, EdgeNodeSpec
from edgewright_operator import metrics, observe, orphans, permits, unreadable
from edgewright_operator.api import ClusterError, Conflict, Unavailable
from edgewright_operator.cluster import Cluster
from edgewright_operator.decide import Decision, Event, decide
from edgewright_operator.facts import ModelFacts, SourceProblem
from edgewright_operator.fleet import Fleet, Wish, key_of
from edgewright_operator.polling import Polling
from edgewright_operator.promql import Promql
from edgewright_operator.settings import Settings
from edgewright_operator.telling import Telling
from edgewright_operator.views import EdgeNodeView
from edgewright_operator.workers import for_each

Object = dict[str, Any]

_IN_DOUBT = (Unavailable, asyncio.CancelledError)
"""Whether the write went through is not known."""
_STATUS = ""
"""Stands for the model itself where EdgeNodes are named."""


@dataclass(slots=True)
class _Memory:
    """What one process remembers of a model: it may all be lost, and the rollout goes on from the status."""

    wave: str = ""
    soaked: float = 0.0
    decided_at: float = 0.0
    soaking: bool = False
    told: str = ""
    """Why there were no permits, so that it is told once."""


@dataclass(slots=True)
class Reconciler:
    """Everything with an effect is passed in."""

    cluster: Cluster
    fleet: Fleet
    polling: Polling
    settings: Settings
    memories: dict[str, _Memory] = field(default_factory=dict)
    promql: Promql | None = None
    unknown: dict[str, set[str]] = field(default_factory=dict)
    """Of each model, the EdgeNodes (`_STATUS`: the model itself) on which a write of ours had no answer."""
    orphaned: set[str] = field(default_factory=set)
    """Models that are gone and whose nodes are being marked: told once they all are."""
    telling: Telling = field(init=False)

    def __post_init__(self) -> None:
        self.telling = Telling(self.cluster)

    async def model(self, key: str, now: datetime, monotonic: float) -> None:
        """Act on one CompressedModel.

        Raises:
            Conflict: what was seen is out of date; it has been read anew meanwhile.
            ClusterError: a write did not go through; deciding anew from what is there finishes it.
        """
        await self._known(key)
        wish = self.fleet.wishes.items.get(key)
        if wish is None:
            self.memories.pop(key, None)
            self.polling.forget(key)
            if self.promql is not None:
                self.promql.forget(key)
            await self._orphaned(key, now)
            if key in self.telling.untold:
                raise Unavailable(f"{key} is gone, and the API server did not take the Event about it yet")
        elif isinstance(wish.facts, SourceProblem):
            await self._unreadable(wish, wish.facts, now)
        else:
            await self._decided(wish, wish.facts, now, monotonic)

    async def _known(self, key: str) -> None:
        """Read what was left in doubt: a decision on what was seen before could overlook what did go through."""
        unknown = self.unknown.get(key, set())
        for name in sorted(unknown):
            await (self._refreshed(key) if name == _STATUS else self._reread(name))
            unknown.discard(name)
        self.unknown.pop(key, None)

    async def _decided(self, wish: Wish, model: ModelFacts, now: datetime, monotonic: float) -> None:
        source = self.polling.latest(model.key, model.spec.source)
        if source is None:  # the answer wakes us
            return
        memory = self.memories.setdefault(model.key, _Memory())
        if self.promql is not None:
            answers = self.promql.latest(model.key, model.spec.rollout.gates, monotonic)
            model = replace(model, prometheus=answers)
        chosen = self._chosen(model)
        left = observe.left(model.key, self.fleet.edge_nodes.items.values(), chosen)
        beats = self.fleet.heartbeats()
        stale = self.settings.stale_seconds
        facts = [observe.node_facts(node, model.key, beats, now, stale) for node in chosen]
        facts += [observe.node_facts(node, model.key, beats, now, stale, selected=False) for node in left]
        with metrics.RECONCILE.time():
            decision = decide(model, source.found, facts, now, _soaked(model, memory, monotonic))
        memory.soaking, memory.decided_at = decision.soaking, monotonic
        if self.promql is not None and _wave_of(decision.status) != _wave_of(model.status):
            self.promql.forget(model.key)  # what it answered before says nothing about the wave that begins
        metrics.decided(model, decision)
        await self._report(wish, model, decision)
        moves, problem = permits.attached(decision.assignments, decision.permits, self.settings.permit_key_file, now)
        missing = (Event(Reason.PERMIT_MISSING, problem, warning=True),) if problem not in ("", memory.told) else ()
        memory.told = problem
        await self.telling.tell(model.key, wish.item, (*decision.events, *missing), now)
        nodes = {node.name: node for node in [*chosen, *left]}
        due = {name: to for name, to in moves.items() if to != observe.entry_of(nodes[name], model.key)}
        await self._apply(model.key, due, nodes, source.trust)

    def _chosen(self, model: ModelFacts) -> list[EdgeNodeView]:
        namespace = self.fleet.namespaces.items.get(model.namespace)
        allowed = observe.selector_of(namespace, single_tenant=self.settings.single_tenant)
        return [] if allowed is None else observe.selected(model, self.fleet.edge_nodes.items.values(), allowed)

    async def _report(self, wish: Wish, model: ModelFacts, decision: Decision) -> None:
        if decision.status != model.status:
            status = decision.status.model_dump(by_alias=True, exclude_none=True, mode="json")
            await self._write_status(wish.item, status)

    async def _write_status(self, item: Object, status: Object) -> None:
        try:
            self.fleet.wishes.seen(await self.cluster.write_status(item, status))
        except _IN_DOUBT:
            self.unknown.setdefault(key_of(item), set()).add(_STATUS)
            raise
        except ClusterError as error:
            if isinstance(error, Conflict) or error.status == 404:
                await self._refreshed(key_of(item))
            raise

    async def _refreshed(self, key: str) -> None:
        fresh = await self.cluster.compressed_model(*key.split("/", 1))
        if fresh is None:
            self.fleet.wishes.gone(key)
        else:
            self.fleet.wishes.seen(fresh)

    async def _apply(
        self,
        key: str,
        assignments: Mapping[str, AssignedModel | None],
        nodes: Mapping[str, EdgeNodeView],
        trust: str | None,
    ) -> None:
        """Write all moves, a bounded number at once; the first trouble stops those that have not begun."""
        conflicts: list[Conflict] = []

        async def move(name: str) -> None:
            if conflict := await self._move(key, nodes[name], assignments[name], trust):
                conflicts.append(conflict)

        await for_each(assignments, move, self.cluster.at_once)
        if conflicts:
            raise conflicts[0]

    async def _move(self, key: str, node: EdgeNodeView, to: AssignedModel | None, trust: str | None) -> Conflict | None:
        """Write the version of the EdgeNode that was decided on, or read it anew where it is another by now."""
        assert node.spec is not None  # noqa: S101 - observe.selected leaves out the others
        models = [entry for entry in node.spec.models if entry.name != key] + ([to] if to else [])
        spec = EdgeNodeSpec(trust=trust or node.spec.trust, models=models)
        body = spec.model_dump(by_alias=True, exclude_none=True, mode="json")
        try:
            version = await self.cluster.write_spec(node, body)
        except _IN_DOUBT:
            self.unknown.setdefault(key, set()).add(node.name)
            raise
        except ClusterError as error:
            if not isinstance(error, Conflict) and error.status != 404:
                raise
            await self._reread(node.name)
            return Conflict(str(error))
        self.fleet.edge_nodes.put(observe.written(node, version, spec))
        return None

    async def _reread(self, name: str) -> None:
        fresh = await self.cluster.edge_node(name)
        if fresh is None:
            self.fleet.edge_nodes.drop(name)
        else:
            self.fleet.edge_nodes.put(fresh)

    async def _unreadable(self, wish: Wish, problem: SourceProblem, now: datetime) -> None:
        status = unreadable.status_of(wish.item, problem, now)
        if status == wish.item.get("status"):
            return
        await self._write_status(wish.item, status)
        await self.telling.tell(
            key_of(wish.item), wish.item, (Event(problem.reason, problem.message, warning=True),), now
        )

    async def _orphaned(self, key: str, now: datetime) -> None:
        """Tidy the nodes of a model that is gone; only when the API server says right now that it is."""
        left = {node.name: node for node in observe.left(key, self.fleet.edge_nodes.items.values(), ())}
        entries = {name: observe.entry_of(node, key) for name, node in left.items()}
        due = {name: entry for name, entry in entries.items() if entry is not None and not entry.orphaned}
        if due:
            found = await self.cluster.compressed_model(*key.split("/", 1))
            if found is not None:
                self.fleet.wishes.seen(found)
                return
            self.orphaned.add(key)
            left_behind = {name: orphans.left_behind(entry) for name, entry in due.items()}
            await self._apply(key, left_behind, left, None)
        namespace, name = key.split("/", 1)
        gone = {"kind": "CompressedModel", "metadata": {"namespace": namespace, "name": name}}
        marked = [entry for entry in entries.values() if entry is not None] if key in self.orphaned else []
        self.orphaned.discard(key)
        await self.telling.tell(key, gone, orphans.told(marked), now)


def _soaked(model: ModelFacts, memory: _Memory, monotonic: float) -> float:
    """Seconds that the wave has soaked: this process's own clock, and never less than the checkpoint."""
    wave, identity = model.status.wave, _wave_of(model.status)
    if wave is None or not identity:
        return 0.0
    if identity != memory.wave:
        memory.wave, memory.soaked, memory.soaking = identity, float(wave.soak_elapsed_seconds), False
    if memory.soaking:
        memory.soaked += monotonic - memory.decided_at
    return memory.soaked


def _wave_of(status: CompressedModelStatus) -> str:
    """Which wave of which release it is, and since when; empty before there is one."""
    wave, release = status.wave, status.release
    return "" if wave is None or release is None else f"{release.manifest}/{wave.index}/{wave.since}"
