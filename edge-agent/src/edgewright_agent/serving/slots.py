"""Which model serves under which name, the one beside it (shadow), and what was measured of each."""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from edgewright_agent.serving import engine
from edgewright_agent.serving.engine import INPUT, OUTPUT, Model, Probabilities, Watts
from edgewright_agent.serving.metrics import Metrics, Tally
from edgewright_agent.serving.spread import Spread

HOLD_SECONDS: Final = 0.020
"""One piece of a request is planned to hold the event loop half as long; 25 ms is the promise."""
SHORT_SECONDS: Final = 0.005
"""A request that is planned to take no longer is answered at once, without a task of its own."""
_OUTPUTS: Final = [OUTPUT]


class NoFiniteAnswer(ValueError):
    """These watts make the model answer with NaN or infinity."""


@dataclass
class Figures:
    """What was measured of one loaded model since it was loaded."""

    samples: int = 0
    effective_samples: int = 0
    errors: int = 0
    invalid: int = 0
    """Windows whose answer held NaN or infinity, whoever sent them."""
    replayed: int = 0
    """Effective samples that came from this node's own readings of the last days (rehearsal.py)."""
    compared: int = 0
    agreed: int = 0
    last_effective: int | None = None
    """Unix second at which the last window that counted as effective ended."""
    row_seconds: float = 0.0
    """Moving mean of what one window takes; the warm-up's at first, which may have had to wait for the processor."""
    micros: deque[float] = field(default_factory=lambda: deque(maxlen=1024))
    spread: Spread | None = None
    """None where the release has no reference."""

    def to_json(self) -> dict[str, object]:
        """As the control socket gives it; latencies of one window in whole microseconds."""
        p50, p95 = np.percentile(self.micros, [50, 95])
        return {
            "samples": self.samples,
            "effectiveSamples": self.effective_samples,
            "replayed": self.replayed,
            "errors": self.errors,
            "invalid": self.invalid,
            "p50Microseconds": math.ceil(p50),
            "p95Microseconds": math.ceil(p95),
            "agreement": self.agreed / self.compared if self.compared else None,
            "rssBytes": rss_bytes(),
            **({} if self.spread is None else {"spread": self.spread.to_json()}),
        }


@dataclass(frozen=True)
class Loaded:
    """A model under its name, with its figures."""

    full_name: str
    model: Model
    figures: Figures
    tally: Tally

    @property
    def name(self) -> str:
        """The name in URLs and metrics: the last part of `namespace/name`."""
        return short_name(self.full_name)


class Slots:
    """Live and shadow models. Touched by the event loop only; a swap is one assignment."""

    def __init__(self, metrics: Metrics) -> None:
        self.live: dict[str, Loaded] = {}
        self.shadow: dict[str, Loaded] = {}
        self.paths: dict[bytes, Loaded] = {}
        """The live models by the URL paths of their infer routes."""
        self._metrics = metrics
        self._turn = asyncio.Lock()

    def put_shadow(self, full_name: str, model: Model) -> None:
        """Hold the model beside the live one.

        Raises:
            EngineError: another namespace's model already has this name here.
        """
        name = short_name(full_name)
        spread = None if model.reference is None else Spread(model.reference)
        figures = Figures(row_seconds=model.row_seconds, spread=spread)
        new = Loaded(full_name, model, figures, self._metrics.tally(name))
        new.figures.micros.append(model.row_seconds * 1e6)  # the warm-up, so that a latency is never absent
        for other in (*self.live.values(), *self.shadow.values()):
            if other.name == new.name and other.full_name != full_name:
                raise engine.EngineError(
                    f"{other.full_name} already serves as {new.name!r} here; rename one of the two."
                )
        self.shadow[new.name] = new
        self._metrics.show(new.name, self.live.get(new.name), new)

    def loaded_beside(self, full_name: str, manifest: str) -> Loaded:
        """The shadow model, if it was loaded under this manifest.

        Raises:
            EngineError: no such model is loaded.
        """
        found = self.shadow.get(short_name(full_name))
        if found is None or found.full_name != full_name or found.model.manifest != manifest:
            raise engine.EngineError(f"{full_name} with manifest {manifest} is not loaded; load it first.")
        return found

    def promote(self, full_name: str, manifest: str) -> None:
        """Serve the shadow model from now on. Promoting what is live already changes nothing.

        Raises:
            EngineError: no such model is loaded.
        """
        start = time.perf_counter()
        name = short_name(full_name)
        old = self.live.get(name)
        try:
            new = self.loaded_beside(full_name, manifest)
        except engine.EngineError:
            if old is not None and old.full_name == full_name and old.model.manifest == manifest:
                return
            raise
        self.live[name] = new
        del self.shadow[name]
        self._find_paths()
        self._metrics.swap_seconds.labels(name).observe(time.perf_counter() - start)
        self._metrics.show(name, new, None)

    def discard(self, full_name: str) -> None:
        """Forget the shadow model. Discarding what is not there changes nothing."""
        self._forget(full_name, self.shadow)

    def unload(self, full_name: str) -> None:
        """Forget the model, live and shadow. Unloading what is not there changes nothing."""
        self._forget(full_name, self.live, self.shadow)
        self._find_paths()

    def _forget(self, full_name: str, *slots: dict[str, Loaded]) -> None:
        name = short_name(full_name)
        for slot in slots:
            if name in slot and slot[name].full_name == full_name:
                del slot[name]
        self._metrics.show(name, self.live.get(name), self.shadow.get(name))

    def _find_paths(self) -> None:
        self.paths = {
            f"/v2/models/{item.name}{version}/infer".encode(): item
            for item in self.live.values()
            for version in ("", f"/versions/{item.model.version}")
        }

    def is_short(self, loaded: Loaded, rows: int) -> bool:
        """Whether so many rows may be answered at once, without letting other requests in between."""
        return rows <= loaded.model.max_rows and rows * loaded.figures.row_seconds <= SHORT_SECONDS

    def infer_now(self, loaded: Loaded, watts: Watts) -> Probabilities:
        """Answer all rows, [rows, 1, window seconds], in one call of the engine.

        Raises:
            NoFiniteAnswer: an answer is NaN or infinite.
        """
        return self._finite(loaded, self._run(loaded, watts))

    async def infer(self, loaded: Loaded, watts: Watts) -> Probabilities:
        """Answer all rows with this one model, in pieces between which other requests get their turn.

        Raises:
            NoFiniteAnswer: an answer is NaN or infinite.
        """
        if self.is_short(loaded, len(watts)):
            return self.infer_now(loaded, watts)
        parts = [part async for part in self._pieces(loaded, watts)]
        return self._finite(loaded, parts[0] if len(parts) == 1 else np.concatenate(parts))

    async def _pieces(self, loaded: Loaded, watts: Watts) -> AsyncIterator[Probabilities]:
        model, row_seconds, done = loaded.model, max(loaded.figures.row_seconds, 1e-6), 0
        while done < len(watts):
            rows = max(1, min(model.max_rows, int(HOLD_SECONDS / row_seconds / 2), len(watts) - done))
            piece = watts[done : done + rows]
            async with self._turn:  # one piece for each turn of the loop, however many requests are long
                start = time.perf_counter()
                if row_seconds > HOLD_SECONDS:
                    answer = await asyncio.to_thread(self._run, loaded, piece)
                else:
                    answer = self._run(loaded, piece)
                row_seconds = max((time.perf_counter() - start) / rows, row_seconds * 0.9)
                await asyncio.sleep(0)
            done += rows
            yield answer

    def _run(self, loaded: Loaded, watts: Watts) -> Probabilities:
        rows, start = len(watts), time.perf_counter()
        try:
            answer: Probabilities = loaded.model.session.run(_OUTPUTS, {INPUT: watts})[0]
        except Exception:
            loaded.figures.errors += rows
            loaded.tally.error += rows
            raise
        taken = (time.perf_counter() - start) / rows
        loaded.figures.row_seconds += 0.05 * (taken - loaded.figures.row_seconds)
        loaded.figures.samples += rows
        if rows == 1:  # a batch's mean would make a window look faster than it is alone
            loaded.figures.micros.append(taken * 1e6)
        loaded.tally.took(taken)
        return answer

    def _finite(self, loaded: Loaded, answer: Probabilities) -> Probabilities:
        if not np.isfinite(answer).all():
            loaded.figures.invalid += len(answer)
            loaded.tally.invalid += len(answer)
            raise NoFiniteAnswer("The model gives no finite answer for these watts; send plausible readings.")
        loaded.tally.ok += len(answer)
        return answer


def short_name(full_name: str) -> str:
    """The last part of `namespace/name`."""
    return full_name.rpartition("/")[2]


def rss_bytes() -> int:
    """Resident memory of this process, as the kernel counts it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
