"""Keeps a server running with everything that should serve: start, signs of life, local revert.

Needs no network: what serves is verified from disk under the trust document that once let it in.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from edgewright_agent import events, fetching, health, lifecycle, rollout
from edgewright_agent.counting import Counts
from edgewright_agent.ledger import Ledger
from edgewright_agent.refusal import Refusal
from edgewright_agent.settings import AgentSettings
from edgewright_agent.state import Held
from edgewright_agent.store import Store
from edgewright_agent.supervisor import CommandRefused, Server, ServerDown
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import ModelState

_LOG = logging.getLogger(__name__)
SETTLE_SECONDS: Final = 600.0
"""A server that has been well for so long starts anew with the count of its crashes."""
CHECKPOINT_SECONDS: Final = 60.0
"""What is left of a trial is saved this often: a restart never shortens it, and lengthens it by no more."""


class Keeper:
    """The server's owner. `changed` is called when something happened that the reconcile loop should look at."""

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        server: Server,
        root: ec.EllipticCurvePublicKey,
        settings: AgentSettings,
        changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger, self._store, self._server, self._root = ledger, store, server, root
        self._settings, self._changed, self._clock = settings, changed, clock
        self._limits = health.Limits(settings.max_error_rate, settings.max_growth_bytes)
        self._recovering = asyncio.Lock()
        self._serves: dict[str, Held] = {}
        self._first: dict[str, health.Look] = {}
        self._before: dict[str, health.Look] = {}
        self._well_since = self._ticked = clock()
        self._fresh = (0, 0)
        """Generation of the server and its memory when it was first looked at."""
        self.counts = Counts()

    async def recover(self, down: ServerDown | None) -> None:
        """Replace the server and give it everything that should serve; what brings it down again is reverted."""
        async with self._recovering:
            if down is not None and down.generation != self._server.generation:
                return  # somebody else replaced it meanwhile
            pause = 0.1
            while not await self._restart(down):
                down = None
                await asyncio.sleep(pause)
                pause = min(30.0, pause * 2)

    async def _restart(self, down: ServerDown | None) -> bool:
        if down is not None:
            self._blame(down)
        self.counts.server_ended(self.counts.present())
        try:
            await self._server.start()
        except (ServerDown, CommandRefused, OSError) as error:
            _LOG.error("the server does not start: %s", error)  # no release was loaded, so none is to blame
            return False
        try:
            await self._load_all()
        except (ServerDown, CommandRefused) as error:
            self._blame(error if isinstance(error, ServerDown) else ServerDown(Reason.CRASH_LOOP, str(error)))
            return False
        self._well_since = self._clock()
        return True

    async def _load_all(self) -> None:
        await self._restore_all()
        await self._server.ask({"op": "serve"})

    async def _restore_all(self) -> None:
        """As if the server held nothing yet."""
        self._serves = {}
        for name in self._ledger.names():
            self._ledger.apply(name, events.Unloaded())
            await self._restore(name)

    async def renew(self) -> None:
        """Have a new process take over from one that has grown, and no connection refused.

        ONNX Runtime gives memory back to the system only when its process ends.
        """
        async with self._recovering:
            before = self.counts.present()
            try:
                await self._server.hand_over(self._load_all)
            except (ServerDown, CommandRefused, OSError) as error:
                _LOG.error("the server that has grown stays: %s", error)
                await self._restore_all()  # a step may have gone to the one that failed
                return
            self.counts.server_ended(before)
            self._well_since = self._clock()

    async def restore_lost(self) -> None:
        """Try again what could not be verified from disk, where nothing serves in its place."""
        for name in self._ledger.names():
            record = self._ledger.record(name)
            if record.live is None and record.broken:
                await self._restore(name)

    async def promoted(self, name: str, held: Held) -> None:
        """The server was made to answer with this; if it was reverted meanwhile, back to what is live.

        Raises:
            ServerDown: the server died meanwhile.
        """
        self._serves[name] = held
        await self._restore(name)

    async def discard(self, name: str) -> None:
        """Let go of what was loaded beside the live release.

        Raises:
            ServerDown: the server died meanwhile.
        """
        with contextlib.suppress(CommandRefused):
            await self._server.ask({"op": "discard", "model": name})

    async def forget(self, name: str) -> None:
        """Serve a model no longer.

        Raises:
            ServerDown: the server died meanwhile.
        """
        try:
            await self._server.ask({"op": "unload", "model": name})
        except CommandRefused as error:
            _LOG.warning("unload %s: %s", name, error)
        self._serves.pop(name, None)

    async def watch(self) -> None:
        """Look after the server for ever."""
        while True:
            on_trial = any(lifecycle.on_trial(record) for record in self._ledger.state.models.values())
            settings = self._settings
            try:
                deadline = settings.trial_hang_seconds if on_trial else settings.hang_seconds
                answer = await self._server.pulse(deadline)
                await self._judge(answer.get("models", {}))
                if not on_trial and self._has_grown(answer.get("models", {})):
                    await self.renew()
                self._tick()
                async with asyncio.timeout(settings.ping_seconds / (8 if on_trial else 1)):
                    await self._server.ended()
            except TimeoutError:
                pass
            except ServerDown as down:
                await self.recover(down)
                self._changed()

    async def _judge(self, models: Mapping[str, Any]) -> None:
        self.counts.look(models)
        for name in self._ledger.names():
            record = self._ledger.record(name)
            if not lifecycle.on_trial(record) or name not in models:
                self._first.pop(name, None)
                continue
            now = health.look(models[name])
            if not health.same(self._first.get(name, now), now):
                self._first.pop(name)
            first = self._first.setdefault(name, now)
            before = self._before.get(name, first)
            self._before[name] = now
            unhealthy = health.judge(first, before if health.same(before, now) else first, now, self._limits)
            if unhealthy is not None:
                await self._revert(name, unhealthy)

    def _has_grown(self, models: Mapping[str, Any]) -> bool:
        """Beyond the limit, or half as much again as a fresh server where that is already beyond."""
        rss = max((health.look(values).rss_bytes for values in models.values()), default=0)
        if self._fresh[0] != self._server.generation:
            self._fresh = (self._server.generation, rss)
        return rss > max(self._settings.max_server_bytes, self._fresh[1] * 1.5)

    async def _revert(self, name: str, unhealthy: events.Unhealthy) -> None:
        went_live = self._ledger.record(name).state is ModelState.LIVE
        self._ledger.apply(name, unhealthy)
        self._changed()
        if unhealthy.reason is Reason.MEMORY_GROWTH:  # what it took comes back only with a new process
            await self.renew()
            return
        await (self._restore(name) if went_live else self.discard(name))

    def _tick(self) -> None:
        now = self._clock()
        if now - self._well_since >= SETTLE_SECONDS:
            self._well_since = now
            for name in self._ledger.names():
                self._ledger.apply(name, events.Settled())
        left = [record.trial_seconds for record in self._ledger.state.models.values() if record.trial]
        passed = now - self._ticked
        if not left:
            self._ticked = now
        elif passed >= min(CHECKPOINT_SECONDS, *left):
            self._ticked = now
            for name in self._ledger.names():
                self._ledger.apply(name, events.Ticked(passed))
            self._changed()

    def _blame(self, down: ServerDown) -> None:
        """Count the crash for what is on trial; only where nothing is, for what has settled."""
        _LOG.error("the server is replaced: %s", down)
        names = self._ledger.names()
        suspects = [name for name in names if lifecycle.on_trial(self._ledger.record(name))]
        for name in suspects or names:
            self._ledger.apply(name, events.Crashed(down.reason, str(down)))

    async def _restore(self, name: str) -> None:
        """Have the server answer with the live release, or with the newest that verifies."""
        while (live := self._ledger.record(name).live) is not None:
            if self._serves.get(name) == live:
                return
            try:
                await self._serve(name, live)
                return
            except Refusal as refusal:
                self._ledger.apply(name, events.Lost(refusal.reason, refusal.message))
            except CommandRefused as error:
                self._ledger.apply(name, events.Lost(Reason.INFERENCE_ERRORS, str(error)[:512]))
        record = self._ledger.record(name)
        for held in (one for one in record.broken if one.assignment != record.quarantined):
            try:
                await self._serve(name, held)
            except (Refusal, CommandRefused) as error:
                _LOG.warning("%s: %s cannot serve: %s", name, held.assignment.manifest, error)
                continue
            self._ledger.apply(name, events.Found(held))
            return
        if self._serves.get(name) is not None:
            await self.forget(name)

    async def _serve(self, name: str, held: Held) -> None:
        registered_model = self._ledger.record(name).registered_model
        fetching.verified_as_admitted(held, registered_model, self._root, self._store)
        patience = self._settings.start_seconds
        await self._server.ask(rollout.load_command(name, held, self._store), patience)
        await self._server.ask(rollout.promote_command(name, held), patience)
        self._serves[name] = held
