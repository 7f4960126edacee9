"""Tells the API server: the status when it changed, in a wave the figures once an interval, and the heartbeat."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Final

from edgewright_agent import counting, report
from edgewright_agent.backoff import pause_seconds
from edgewright_agent.counting import Counts
from edgewright_agent.kube import Kube, KubeError
from edgewright_agent.ledger import Ledger
from edgewright_agent.report import Problems
from edgewright_agent.settings import AgentSettings
from edgewright_agent.state import Held
from edgewright_contract.conditions import Condition
from edgewright_contract.edgenode import Figures, Hardware

_LOG = logging.getLogger(__name__)
FIRST_PAUSE: Final = 0.5


class Teller:
    """One writer of the status. `problems` says what is wrong beside the models, `hardware` what this node is."""

    def __init__(
        self,
        ledger: Ledger,
        kube: Kube,
        settings: AgentSettings,
        rng: random.Random,
        counts: Counts,
        hardware: Callable[[], Hardware],
        problems: Callable[[], Problems],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger, self._kube, self._settings, self._rng = ledger, kube, settings, rng
        self._counts, self._hardware, self._problems, self._clock = counts, hardware, problems, clock
        self._due = asyncio.Event()
        self._conditions: list[Condition] = []
        self._told: dict[str, object] = {}
        self._figures: dict[str, tuple[Held | None, Figures]] = {}
        self._figures_at = clock()

    def tell(self) -> None:
        """Something may have changed."""
        self._due.set()

    async def run(self) -> None:
        """Write whenever something changed; what could not be written is tried again with growing pauses."""
        failures = 0
        while True:
            await self._due.wait()
            self._due.clear()
            if await self._write():
                failures = 0
                continue
            failures += 1
            self._due.set()
            await asyncio.sleep(pause_seconds(failures, FIRST_PAUSE, self._settings.retry_seconds, self._rng))

    async def run_figures(self) -> None:
        """While a release is young its figures are news."""
        interval = self._settings.figures_seconds
        while True:
            await asyncio.sleep(interval)
            ago, now = self._clock() - self._figures_at + interval / 10, self._ledger.now()
            if any(counting.due(record, ago, interval, now) for record in self._ledger.state.models.values()):
                self._take_figures()
                self.tell()

    async def run_heartbeat(self) -> None:
        """Renew the Lease."""
        while True:
            pause = self._settings.heartbeat_seconds
            try:
                await self._kube.renew_lease(self._ledger.now())
            except (KubeError, OSError) as error:
                _LOG.warning("heartbeat: %s", error)
                pause = min(pause, self._settings.retry_seconds)
            await asyncio.sleep(pause * self._rng.uniform(0.8, 1.2))

    def _take_figures(self) -> None:
        """What is told is saved first, so that no counter falls over a restart."""
        self._figures_at = self._clock()
        for name in self._ledger.names():
            record = self._ledger.record(name)
            values, total = self._counts.figures(record), self._counts.total(record)
            if values is None:
                continue
            self._figures[name] = (record.live, Figures.model_validate(values))
            if total != record.counted:
                self._ledger.put(record.model_copy(update={"counted": total}))

    async def _write(self) -> bool:
        if self._states() != self._told.get("states"):
            self._take_figures()  # a transition brings its figures along
        records, now = self._ledger.state.models.values(), self._ledger.now()
        status = report.status(self._hardware(), records, self._about_live(), self._conditions, self._problems(), now)
        patch = report.as_patch(status)
        if patch == self._told.get("patch"):
            return True
        try:
            await self._kube.patch_status(patch)
        except (KubeError, OSError) as error:
            _LOG.warning("status: %s", error)
            return False
        self._conditions = status.conditions
        self._told = {"patch": patch, "states": self._states()}
        return True

    def _about_live(self) -> dict[str, Figures]:
        """Figures of a release that no longer serves are nobody's."""
        models = self._ledger.state.models
        return {
            name: figures
            for name, (held, figures) in self._figures.items()
            if name in models and models[name].live == held
        }

    def _states(self) -> object:
        return {name: (record.state, record.live) for name, record in self._ledger.state.models.items()}
