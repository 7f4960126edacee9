"""From readings to snapshots: window.push → engine.predict → Snapshot; the shadow model runs on the same windows."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

import numpy as np

from edgewright_agent.serving.history import History
from edgewright_agent.serving.metrics import Metrics
from edgewright_agent.serving.slots import Loaded, NoFiniteAnswer, Slots
from edgewright_agent.serving.window import Ring

log = logging.getLogger(__name__)
TURN_SECONDS: Final = 0.005
"""Readings are taken for so long in one turn of the event loop."""


@dataclass(frozen=True)
class Reading:
    """Mean watts of one Unix second."""

    t: int
    watts: float


@dataclass(frozen=True)
class Snapshot:
    """What one window said."""

    t: int
    model: str
    version: int
    variant: str
    appliance: str
    probability: float
    watts: float
    """Mean over the last hop."""


class Live:
    """Takes readings in order and keeps the newest snapshot of each model."""

    def __init__(self, slots: Slots, metrics: Metrics, history: History | None = None) -> None:
        self.ring = Ring()
        self.snapshots: dict[str, Snapshot] = {}
        self.recent: deque[Reading] = deque(maxlen=300)
        self.energy_today: dict[str, float] = {}
        """Joules by appliance since midnight, local time of the readings."""
        self._day: date | None = None
        self._slots, self._metrics, self._history = slots, metrics, history
        self._due: dict[str, int] = {}
        self._lock = asyncio.Lock()

    async def take(self, readings: Iterable[Reading]) -> int:
        """Push the readings in order; give how many there were. Lets others run every 5 ms."""
        count, start = 0, time.perf_counter()
        async with self._lock:
            for reading in readings:
                await self._push(reading)
                count += 1
                if time.perf_counter() - start > TURN_SECONDS:
                    await asyncio.sleep(0)
                    start = time.perf_counter()
        return count

    async def _push(self, reading: Reading) -> None:
        before = self.ring.last
        self._metrics.gap_seconds.inc(self.ring.push(reading.t, reading.watts))
        if self.ring.last != reading.t:
            return
        if self._history is not None and self._history.add(reading.t, reading.watts):
            await asyncio.to_thread(self._history.flush)  # an fsync may take long on a card
        if before is not None and reading.t < before:
            self._due.clear()  # the clock was set back
        self.recent.append(reading)
        for index, loaded in enumerate(list(self._slots.live.values())):
            if reading.t >= self._due.get(loaded.name, 0):
                await self._window(loaded, reading.t, attribute=index == 0)

    async def _window(self, loaded: Loaded, end: int, *, attribute: bool) -> None:
        window = self.ring.latest(loaded.model.window.seconds)
        if window is None:
            return
        hop = loaded.model.window.hop_seconds
        self._due[loaded.name] = end + hop
        best = await self._best(loaded, window, end)
        if best is None:
            return
        label, probability = loaded.model.labels[best[0]], best[1]
        latest = window[-min(hop, len(window)) :]
        model = loaded.model
        mean = float(latest.mean())
        self.snapshots[loaded.name] = Snapshot(end, loaded.name, model.version, model.variant, label, probability, mean)
        if attribute:  # one model's view of the household, else joules would count twice
            self._attribute(model.labels, label, end, mean, mean * hop)
        shadow = self._slots.shadow.get(loaded.name)
        if shadow is not None:
            await self._compare(shadow, label, end)

    async def _compare(self, shadow: Loaded, label: str, end: int) -> None:
        window = self.ring.latest(shadow.model.window.seconds)
        best = None if window is None else await self._best(shadow, window, end)
        if best is None:
            return
        shadow.figures.compared += 1
        shadow.figures.agreed += shadow.model.labels[best[0]] == label
        self._metrics.agreement.labels(shadow.name).set(shadow.figures.agreed / shadow.figures.compared)

    async def _best(
        self, loaded: Loaded, window: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]", end: int
    ) -> tuple[int, float] | None:
        try:
            row = (await self._slots.infer(loaded, window.reshape(1, 1, -1)))[0]
        except NoFiniteAnswer:
            loaded.figures.errors += 1
            return None
        except Exception:  # one failed window must not end the source
            log.exception("%s failed on the window that ended at %d", loaded.full_name, end)
            return None
        figures = loaded.figures
        if figures.last_effective is None or end >= figures.last_effective + loaded.model.window.seconds:
            figures.effective_samples, figures.last_effective = figures.effective_samples + 1, end
            if figures.spread is not None:
                figures.spread.take(float(row.max()), float(window.mean()))
        best = int(row.argmax())
        return best, float(row[best])

    def _attribute(self, labels: tuple[str, ...], appliance: str, end: int, watts: float, joules: float) -> None:
        day = datetime.fromtimestamp(end).date()
        if day != self._day:
            self._day, self.energy_today = day, {}
        joules = max(joules, 0.0)  # feeding in is no appliance's energy
        self.energy_today[appliance] = self.energy_today.get(appliance, 0.0) + joules
        self._metrics.energy.labels(appliance).inc(joules)
        for label in labels:
            self._metrics.power.labels(label).set(watts if label == appliance else 0)
