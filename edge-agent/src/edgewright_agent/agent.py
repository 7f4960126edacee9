"""The supervisor's loops: what the watch says is walked to Live, the server is kept alive, the API server is told.

Nothing here needs the network to serve: at start the last known good is verified from disk and loaded first.
"""

import asyncio
import contextlib
import functools
import hashlib
import logging
import random
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from edgewright_agent import benchmarking, events, rollout
from edgewright_agent.backoff import pause_seconds
from edgewright_agent.keeper import Keeper
from edgewright_agent.kube import Kube
from edgewright_agent.ledger import SETTLED, Ledger
from edgewright_agent.refusal import Delay, Refusal
from edgewright_agent.renewal import Renewal
from edgewright_agent.report import Problems
from edgewright_agent.state import Held, ModelRecord
from edgewright_agent.supervisor import Server, ServerDown
from edgewright_agent.teller import Teller
from edgewright_agent.trusting import Believed
from edgewright_agent.verify import Node
from edgewright_contract import names, trust
from edgewright_contract.edgenode import AssignedModel, EdgeNodeSpec, Hardware, ModelState
from edgewright_contract.models import first_fault

_LOG = logging.getLogger(__name__)
FIRST_PAUSE: Final = 1.0
_LONG: Final = frozenset({ModelState.PENDING, ModelState.VERIFIED})
_Result = TypeVar("_Result")


class Agent:
    """One node's agent. `run` returns only when it is cancelled."""

    def __init__(
        self,
        tools: rollout.Tools,
        server: Server,
        kube: Kube,
        hardware: Hardware,
        rng: random.Random,
        renewal: Renewal | None = None,
    ) -> None:
        self._tools, self._server, self._kube, self._rng = tools, server, kube, rng
        self._renewal = renewal
        self._hardware = self._own_hardware = hardware
        self.ledger = Ledger(tools.store, tools.now)
        self._believed = Believed(self.ledger, tools.store, tools.gateway, tools.root)
        self._spec: EdgeNodeSpec | None = None
        self._spec_problem = ""
        """Why the EdgeNode's spec is not followed."""
        self._changed = asyncio.Event()
        self._superseded = asyncio.Event()
        """The operator wants something else than what is being worked on."""
        self.keeper = Keeper(self.ledger, tools.store, server, tools.root, tools.settings, self._changed.set)
        self._teller = Teller(
            self.ledger,
            kube,
            tools.settings,
            rng,
            self.keeper.counts,
            lambda: self._hardware,
            self._problems,
        )

    def _problems(self) -> Problems:
        return Problems(self._believed.problem, self.ledger.problem, self._tools.store.damage, self._spec_problem)

    async def run(self) -> None:
        """Serve the last known good, then follow the EdgeNode."""
        await self.start()
        teller = self._teller
        loops: list[Coroutine[Any, Any, None]] = [
            *(self._watch(), self._reconcile(), self.keeper.watch()),
            *(teller.run(), teller.run_figures(), teller.run_heartbeat()),
        ]
        if self._renewal is not None:
            loops.append(self._renewal.run())
        try:
            async with asyncio.TaskGroup() as group:
                for loop in loops:
                    group.create_task(loop)
        finally:
            for name in self.ledger.names():
                self.ledger.apply(name, events.Stopped())

    async def start(self) -> None:
        """Load what was saved and serve it.

        Raises:
            StateError: what was saved cannot be read, and nothing whole is beside it.
        """
        self.ledger.load()
        for name in self.ledger.names():
            self.keeper.counts.resume(self.ledger.apply(name, events.Started()))
        self._believed.open()
        await self.keeper.recover(None)

    async def _watch(self) -> None:
        async for seen in self._kube.watch(_LOG.warning):
            if seen.edge_node is None:
                _LOG.warning("there is no EdgeNode for this node: it goes on serving what it has")
                continue
            self._take(seen.edge_node)

    def _take(self, edge_node: Mapping[str, Any]) -> None:
        try:
            spec = EdgeNodeSpec.model_validate(edge_node.get("spec") or {})
        except ValidationError as error:
            self._spec_problem = f"{first_fault(error, 'spec')}; it is ignored, and what was assigned before goes on"
            _LOG.error("EdgeNode: %s", self._spec_problem)
            self._teller.tell()
            return
        if self._spec_problem:
            self._spec_problem = ""
            self._teller.tell()
        label = (edge_node.get("metadata", {}).get("labels") or {}).get(names.LABEL_HARDWARE_CLASS)
        chosen = {"class_": label or self._own_hardware.class_}
        self._hardware = self._own_hardware.model_copy(update=chosen)
        self._tools = replace(self._tools, node=Node(self._tools.node.name, self._hardware.class_))
        if spec != self._spec:
            self._superseded.set()
        self._spec = spec
        self._changed.set()

    async def _reconcile(self) -> None:
        pause: float | None = None
        attempts = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()
                    attempts = 0
            self._changed.clear()
            if self._spec is None:
                continue
            try:
                settled = await self.once(self._spec)
            except ServerDown as down:
                await self.keeper.recover(down)
                self._changed.set()
                continue
            except (OSError, Refusal) as error:
                _LOG.error("reconciling: %s", error)
                settled = False
            except Exception:  # a fault of ours may hold a rollout up; what serves goes on serving
                _LOG.exception("reconciling failed; it is tried again")
                settled = False
            attempts = 0 if settled else attempts + 1
            longest = self._tools.settings.retry_seconds
            pause = None if settled else pause_seconds(attempts, FIRST_PAUSE, longest, self._rng)

    async def once(self, spec: EdgeNodeSpec) -> bool:
        """Walk every model as far as it goes; whether all have arrived.

        Raises:
            ServerDown: the server died or hung.
            OSError: the disk refuses.
        """
        self._superseded.clear()
        self.ledger.retry()
        settled = await self._believed.renew(spec)
        for name in set(self.ledger.names()) - {model.name for model in spec.models}:
            await self.keeper.forget(name)
            self.ledger.drop(name)
        await self.keeper.restore_lost()
        for wish in spec.models:
            if self._believed.opened is not None:
                settled = await self._walk(wish, self._believed.opened) and settled
        if settled:  # what is half fetched is not thrown away
            self.ledger.collect({spec.trust} if spec.trust else set())
        self._teller.tell()
        return settled and self.ledger.problem is None

    async def _walk(self, wish: AssignedModel, opened: trust.OpenedTrust) -> bool:
        if wish.live is None and wish.benchmark is None:
            return True
        self.ledger.open(wish)
        if wish.live is None:
            return await self._measure(wish, opened)
        made_of = f"{wish.live.model_dump_json()}{wish.permit}{opened.digest}{self._tools.node.hardware_class}"
        attempt = hashlib.sha256(made_of.encode()).hexdigest()
        record = self.ledger.apply(wish.name, events.Assigned(wish.live, attempt))
        if record.state not in SETTLED:
            async with self._tools.self_test_ahead():
                if not await self._walk_on(record, wish, opened):
                    return False
        return await self._measure(wish, opened)

    async def _walk_on(self, record: ModelRecord, wish: AssignedModel, opened: trust.OpenedTrust) -> bool:
        while record.state not in SETTLED:
            candidate = record.candidate
            step = rollout.step(record, wish, opened, self.ledger, self._tools)
            event = await (self._unless_superseded(step) if record.state in _LONG else step)
            if event is None:
                break
            record = self.ledger.apply(wish.name, event)
            if isinstance(event, events.Delayed):
                return False
            await self._after(wish.name, event, candidate)
            if self._superseded.is_set():
                break
        return not self._superseded.is_set()

    async def _unless_superseded(self, work: Coroutine[Any, Any, _Result]) -> _Result | None:
        """Download, self-test and measurement take long and can be broken off; a rollback does not wait for them."""
        task, other = asyncio.ensure_future(work), asyncio.ensure_future(self._superseded.wait())
        try:
            await asyncio.wait({task, other}, return_when=asyncio.FIRST_COMPLETED)
            return await task if task.done() else None
        finally:
            for one in (task, other):
                one.cancel()
            await asyncio.gather(task, other, return_exceptions=True)

    async def _after(self, name: str, event: events.Event, candidate: Held | None) -> None:
        if isinstance(event, events.Promoted) and candidate is not None:
            await self.keeper.promoted(name, candidate)
        if isinstance(event, events.Refused):
            await self.keeper.discard(name)
        if isinstance(event, events.Shadowed | events.Promoted | events.Refused):
            self._teller.tell()

    async def _measure(self, wish: AssignedModel, opened: trust.OpenedTrust) -> bool:
        idle = functools.partial(benchmarking.idle, self._server.cpu_seconds)
        record = self.ledger.record(wish.name)
        try:
            measuring = benchmarking.measured(record, wish, opened, self._tools, idle)
            measured = await self._unless_superseded(measuring)
        except (Delay, OSError) as problem:
            _LOG.info("%s: not measured yet: %s", wish.name, problem)
            return False
        if measured is None:
            return False
        if measured != record.benchmark:
            self.ledger.put(self.ledger.record(wish.name).model_copy(update={"benchmark": measured}))
        return True
