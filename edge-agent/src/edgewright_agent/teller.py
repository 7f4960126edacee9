"""Tells the API server: the status when it changed, in a wave the figures once an interval, and the heartbeat."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from edgewright_agent import report
from edgewright_agent.kube import Kube, KubeError
from edgewright_agent.ledger import Ledger
from edgewright_agent.settings import AgentSettings
from edgewright_contract.conditions import Condition, Reason
from edgewright_contract.edgenode import Figures, Hardware

_LOG = logging.getLogger(__name__)
FIRST_PAUSE: float = 0.5


class Teller:
    """One writer of the status. `figures` gives the server's last answer, `trust_problem` what is wrong with trust."""

    def __init__(
        self,
        ledger: Ledger,
        kube: Kube,
        settings: AgentSettings,
        rng: random.Random,
        hardware: Callable[[], Hardware],
        figures: Callable[[], dict[str, Any]],
        trust_problem: Callable[[], tuple[Reason, str] | None],
    ) -> None:
        self._ledger, self._kube, self._settings, self._rng = ledger, kube, settings, rng
        self._hardware, self._figures, self._trust_problem = hardware, figures, trust_problem
        self._due = asyncio.Event()
        self._conditions: list[Condition] = []
        self._told: dict[str, object] = {}
        self._last_figures: dict[str, Figures] = {}

    def tell(self) -> None:
        """Something may have changed."""
        self._due.set()

    async def run(self) -> None:
        """Write whenever something changed; what could not be written is tried again with growing pauses."""
        pause = FIRST_PAUSE
        while True:
            await self._due.wait()
            self._due.clear()
            if await self._write():
                pause = FIRST_PAUSE
                continue
            self._due.set()
            await asyncio.sleep(pause * self._rng.uniform(0.5, 1.0))
            pause = min(self._settings.retry_seconds, pause * 2)

    async def run_figures(self) -> None:
        """While a model is on trial its figures are news, once an interval."""
        while True:
            await asyncio.sleep(self._settings.figures_seconds)
            if any(record.trial for record in self._ledger.state.models.values()):
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
        since = {name: record.trial.since for name, record in self._ledger.state.models.items() if record.trial}
        with contextlib.suppress(ValidationError):
            self._last_figures = report.figures_of({"models": self._figures()}, since)

    async def _write(self) -> bool:
        if self._states() != self._told.get("states"):
            self._take_figures()  # a transition brings its figures along
        records, now = self._ledger.state.models.values(), self._ledger.now()
        problems = report.Problems(self._trust_problem(), self._ledger.problem)
        status = report.status(self._hardware(), records, self._last_figures, self._conditions, problems, now)
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

    def _states(self) -> object:
        return {name: (record.state, record.live) for name, record in self._ledger.state.models.items()}
