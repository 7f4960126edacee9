"""Before a model goes live: the node's own readings of the last days through old and new, in idle time."""

import asyncio
import math
import time
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edgewright_agent.serving import engine
from edgewright_agent.serving.engine import Probabilities, Watts
from edgewright_agent.serving.slots import Loaded

MIN_KNOWN: Final = 0.5
"""A window of which less than this share is known says nothing."""
MAX_WINDOWS: Final = 512
MIN_TIMED: Final = 20
"""A 95th percentile of fewer windows says nothing."""


@dataclass
class Evidence:
    """What a rehearsal found. Its windows do not overlap, so each counts as an effective sample."""

    replayed: int = 0
    errors: int = 0
    compared: int = 0
    agreed: int = 0
    previous_micros: list[float] = field(default_factory=list)
    """Time of the old model in each window, measured in turn with the new one."""

    def to_json(self) -> dict[str, object]:
        """As the control socket gives it."""
        agreement = self.agreed / self.compared if self.compared else None
        counted = {"replayed": self.replayed, "errors": self.errors, "compared": self.compared, "agreement": agreement}
        enough = len(self.previous_micros) >= MIN_TIMED
        p95 = math.ceil(np.percentile(self.previous_micros, 95)) if enough else 0
        return {**counted, "previousP95Microseconds": p95}


async def rehearse(new: Loaded, old: Loaded | None, watts: Watts, seconds: float) -> Evidence:
    """Run windows, the newest first, through both; the figures of `new` take them up.

    `watts` is [seconds], NaN where unknown. Uses at most half of one core, for about `seconds` seconds.
    """
    evidence = Evidence()
    until = time.perf_counter() + seconds
    length = new.model.window.seconds
    for end in range(len(watts), length - 1, -length):
        if time.perf_counter() >= until or evidence.replayed + evidence.errors >= MAX_WINDOWS:
            break
        window = watts[end - length : end]
        if np.isfinite(window).mean() < MIN_KNOWN:
            continue
        began = time.perf_counter()
        _one(new, old, watts[:end], evidence)
        await asyncio.sleep(time.perf_counter() - began)
    figures = new.figures
    figures.replayed = evidence.replayed
    figures.effective_samples += evidence.replayed
    figures.compared += evidence.compared
    figures.agreed += evidence.agreed
    figures.errors += evidence.errors
    return evidence


def _one(new: Loaded, old: Loaded | None, until: Watts, evidence: Evidence) -> None:
    answer, window, micros = _answer(new, until)
    if answer is None:
        evidence.errors += 1
        return
    evidence.replayed += 1
    new.figures.samples += 1
    new.figures.micros.append(micros)
    if new.figures.spread is not None:
        new.figures.spread.take(float(answer.max()), float(window.mean()))
    if old is None or len(until) < old.model.window.seconds:
        return
    before, _, micros = _answer(old, until)
    if before is not None:
        evidence.previous_micros.append(micros)
        evidence.compared += 1
        evidence.agreed += new.model.labels[int(answer.argmax())] == old.model.labels[int(before.argmax())]


def _answer(loaded: Loaded, until: Watts) -> tuple[Probabilities | None, Watts, float]:
    """Probabilities [classes] of the newest window, none where they are not finite; the window; microseconds."""
    window = np.nan_to_num(until[-loaded.model.window.seconds :]).reshape(1, 1, -1)
    began = time.perf_counter()
    try:
        row = engine.predict(loaded.model, window)[0]
    except Exception:  # the runtime raises many types, none of them public
        return None, window, 0.0
    micros = (time.perf_counter() - began) * 1e6
    return (row if np.isfinite(row).all() else None), window, micros
