"""The supervisor's loops: what the watch says is walked to Live, the server is kept alive, the API server is told.

Nothing here needs the network to serve: at start the last known good is verified from disk and loaded first.
"""

import asyncio
import contextlib
import hashlib
import logging
import random
from datetime import datetime

from pydantic import ValidationError

from edgewright_agent import lifecycle, report, rollout
from edgewright_agent.kube import Kube, KubeError
from edgewright_agent.refusal import Delay, Refusal
from edgewright_agent.state import AgentState, ModelRecord
from edgewright_agent.supervisor import CommandRefused, ServerDown
from edgewright_contract import names, trust
from edgewright_contract.conditions import Condition, Reason
from edgewright_contract.edgenode import AssignedModel, EdgeNodeSpec, Figures, Hardware, ModelState

_LOG = logging.getLogger(__name__)
_SETTLED = frozenset({ModelState.LIVE, ModelState.REJECTED, ModelState.REVERTED})


class Agent:
    """One node's agent. `run` returns only when it is cancelled."""

    def __init__(self, tools: rollout.Tools, kube: Kube, hardware: Hardware, rng: random.Random) -> None:
        self._tools = tools
        self._kube = kube
        self._hardware = hardware
        self._rng = rng
        self._state = AgentState()
        self._trust: trust.OpenedTrust | None = None
        self._trust_problem: tuple[Reason, str] | None = (Reason.TRUST_MISSING, "no trust document yet")
        self._spec: EdgeNodeSpec | None = None
        self._changed = asyncio.Event()
        self._conditions: list[Condition] = []
        self._figures: dict[str, Figures] = {}
        self._reported: dict[str, object] = {}
        self._recovering = asyncio.Lock()

    async def run(self) -> None:
        """Serve the last known good, then follow the EdgeNode."""
        self._state = self._tools.store.load()
        self._open_trust()
        await self._recover(None)
        loops = (self._watch(), self._reconcile(), self._watchdog(), self._heartbeat(), self._report_figures())
        async with asyncio.TaskGroup() as group:
            for loop in loops:
                group.create_task(loop)

    async def _watch(self) -> None:
        async for seen in self._kube.watch(_LOG.warning):
            if seen.edge_node is None:
                _LOG.warning("there is no EdgeNode for this node: it goes on serving what it has")
                continue
            try:
                self._spec = EdgeNodeSpec.model_validate(seen.edge_node.get("spec") or {})
            except ValidationError as error:
                _LOG.error("EdgeNode spec is not understood and ignored: %s", error.errors()[0])
                continue
            self._changed.set()

    async def _reconcile(self) -> None:
        pause: float | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            self._changed.clear()
            if self._spec is None:
                continue
            try:
                settled = await self._pass(self._spec)
            except ServerDown as down:
                await self._recover(down)
                self._changed.set()
                continue
            except (OSError, Refusal) as error:
                _LOG.error("reconciling: %s", error)
                settled = False
            retry = self._tools.settings.retry_seconds
            pause = self._until_trial_ends() if settled else retry * self._rng.uniform(0.5, 1.0)

    async def _pass(self, spec: EdgeNodeSpec) -> bool:
        """Walk every model as far as it goes; whether all have arrived."""
        await self._renew_trust(spec)
        await self._drop({model.name for model in spec.models})
        settled = self._trust_problem is None
        for wish in spec.models:
            if self._trust is not None and wish.live is not None:
                settled = await self._walk(wish, self._trust) and settled
        self._tools.store.collect(self._state.blobs() | self._parts_wanted())
        await self._tell()
        return settled

    async def _walk(self, wish: AssignedModel, opened: trust.OpenedTrust) -> bool:
        if wish.live is None:
            return True
        if wish.name not in self._state.models:
            self._store(ModelRecord(name=wish.name, registered_model=wish.registered_model))
        attempt = hashlib.sha256(f"{wish.live.model_dump_json()}{wish.permit}{opened.digest}".encode()).hexdigest()
        self._apply(wish.name, lifecycle.Assigned(wish.live, attempt))
        while (record := self._state.models[wish.name]).state not in _SETTLED:
            event = await rollout.step(record, wish, opened, self._tools)
            if event is None:
                break
            self._apply(wish.name, event)
            if isinstance(event, lifecycle.Delayed):
                return False
            if isinstance(event, lifecycle.Shadowed | lifecycle.Refused):
                await self._tell()
        record = self._state.models[wish.name]
        if lifecycle.trial_is_over(record, self._tools.now()):
            self._apply(wish.name, lifecycle.TrialOver())
        try:
            measured = await rollout.benchmarks(record, wish, opened, self._tools)
        except Delay:
            return False
        if measured != record.benchmark:
            self._store(self._state.models[wish.name].model_copy(update={"benchmark": measured}))
        return True

    async def _drop(self, wanted: set[str]) -> None:
        for name in set(self._state.models) - wanted:
            with contextlib.suppress(CommandRefused):
                await self._tools.server.ask({"op": "unload", "model": name})
            rest = {key: record for key, record in self._state.models.items() if key != name}
            self._save(self._state.model_copy(update={"models": rest}))

    async def _renew_trust(self, spec: EdgeNodeSpec) -> None:
        if spec.trust is None or (spec.trust == self._state.trust and self._trust is not None):
            return
        try:
            await self._tools.gateway.fetch(self._tools.store, spec.trust, names.MAX_TRUST_BYTES)
            opened = rollout.open_stored_trust(spec.trust, self._tools.store, self._tools.root)
        except (Refusal, Delay) as problem:
            if self._trust is None or isinstance(problem, Refusal):
                self._trust_problem = (problem.reason, problem.message)
            return
        if opened.trust.sequence < self._state.trust_sequence:
            known = self._state.trust_sequence
            self._trust_problem = (Reason.TRUST_REFUSED, f"sequence {opened.trust.sequence} is older than {known}")
            return
        self._save(self._state.model_copy(update={"trust": opened.digest, "trust_sequence": opened.trust.sequence}))
        self._trust, self._trust_problem = opened, None

    def _open_trust(self) -> None:
        if self._state.trust is None:
            return
        try:
            self._trust = rollout.open_stored_trust(self._state.trust, self._tools.store, self._tools.root)
            self._trust_problem = None
        except Refusal as refusal:
            self._trust_problem = (refusal.reason, refusal.message)

    async def _recover(self, down: ServerDown | None) -> None:
        """Replace the server and give it everything that should serve; what brings it down again is reverted."""
        async with self._recovering:
            if down is not None and await self._answers():
                return  # somebody else replaced it meanwhile
            pause = 0.1
            while True:
                if down is not None:
                    _LOG.error("the server is replaced: %s", down)
                    for name in self._state.models:
                        self._apply(name, lifecycle.Crashed(down.reason))
                try:
                    await self._tools.server.start()
                    for name in list(self._state.models):
                        await self._restore(name)
                    return
                except ServerDown as error:
                    down = error
                    await asyncio.sleep(pause)
                    pause = min(30.0, pause * 2)

    async def _restore(self, name: str) -> None:
        while (live := (record := self._state.models[name]).live) is not None:
            try:
                if self._trust is None:
                    raise Refusal(Reason.TRUST_MISSING, "no trust document")
                rollout.verified_from_disk(live, record.registered_model, self._trust, self._tools.store)
                patience = self._tools.settings.start_seconds
                await self._tools.server.ask(rollout.load_command(name, live, self._tools.store), patience)
                await self._tools.server.ask(rollout.promote_command(name, live), patience)
                return
            except Refusal as refusal:
                self._apply(name, lifecycle.Lost(refusal.reason, refusal.message))
            except CommandRefused as error:
                self._apply(name, lifecycle.Lost(Reason.INFERENCE_ERRORS, str(error)[:512]))

    async def _answers(self) -> bool:
        try:
            await self._tools.server.ask({"op": "ping"})
        except ServerDown:
            return False
        return True

    async def _watchdog(self) -> None:
        while True:
            await asyncio.sleep(self._tools.settings.ping_seconds)
            try:
                await self._tools.server.ask({"op": "ping"})
            except ServerDown as down:
                await self._recover(down)
                self._changed.set()

    async def _heartbeat(self) -> None:
        while True:
            pause = self._tools.settings.heartbeat_seconds
            try:
                await self._kube.renew_lease(self._tools.now())
            except (KubeError, OSError) as error:
                _LOG.warning("heartbeat: %s", error)
                pause = min(pause, self._tools.settings.retry_seconds)
            await asyncio.sleep(pause * self._rng.uniform(0.8, 1.2))

    async def _report_figures(self) -> None:
        while True:
            await asyncio.sleep(self._tools.settings.figures_seconds)
            if any(record.trial for record in self._state.models.values()):
                await self._tell()

    async def _tell(self) -> None:
        """Write the status where it differs from what was written last; a refusal is tried again next time."""
        with contextlib.suppress(ServerDown, CommandRefused, ValidationError):
            since = {name: record.trial.since for name, record in self._state.models.items() if record.trial}
            self._figures = report.figures_of(await self._tools.server.ask({"op": "figures"}), since)
        records = self._state.models.values()
        now = self._tools.now()
        status = report.status(self._hardware, records, self._figures, self._conditions, self._trust_problem, now)
        self._conditions = status.conditions
        patch = report.as_patch(status)
        if patch == self._reported:
            return
        try:
            await self._kube.patch_status(patch)
            self._reported = patch
        except (KubeError, OSError) as error:
            _LOG.warning("status: %s", error)

    def _apply(self, name: str, event: lifecycle.Event) -> None:
        before = self._state.models[name]
        after = lifecycle.transition(before, event, self._tools.now())
        if after != before:
            if after.state is not before.state:
                _LOG.info("%s: %s to %s %s %s", name, before.state, after.state, after.reason, after.message)
            self._store(after)

    def _store(self, record: ModelRecord) -> None:
        self._save(self._state.with_model(record))

    def _save(self, state: AgentState) -> None:
        self._tools.store.save(state)
        self._state = state

    def _parts_wanted(self) -> set[str]:
        """While a model is under way nothing that its release names may be collected."""
        if all(record.state in _SETTLED for record in self._state.models.values()):
            return set()
        return self._tools.store.digests()

    def _until_trial_ends(self) -> float | None:
        now = self._tools.now()
        ends = [datetime.fromisoformat(r.trial.until) for r in self._state.models.values() if r.trial]
        return max(0.1, min((end - now).total_seconds() for end in ends)) if ends else None
