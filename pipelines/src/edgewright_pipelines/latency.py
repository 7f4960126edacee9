"""Beside `evaluate.measure`: how long one window takes, for several files fairly, because their rounds alternate."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_pipelines.session import INPUT, OUTPUT, opened

Clock = Callable[[], int]  # nanoseconds, never backwards


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is timed: `rounds` times `runs` of each file, after `warmup` runs that do not count."""

    warmup: int = 50
    rounds: int = 20
    runs: int = 50


@dataclass(frozen=True, slots=True)
class Latency:
    """Microseconds of one window, batch 1, one thread."""

    p50: float
    p95: float
    runs: int


def measure(
    models: Mapping[str, bytes],
    example: npt.NDArray[Any],
    *,
    effort: Effort | None = None,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, Latency]:
    """Latency of each file on one window `example` [window]; a busy moment of the machine meets all files alike."""
    effort = effort or Effort()
    feed = {INPUT: np.ascontiguousarray(example, dtype=np.float32)[None, None, :]}
    sessions = {name: opened(model) for name, model in models.items()}
    for session in sessions.values():
        for _ in range(effort.warmup):
            session.run([OUTPUT], feed)
    taken: dict[str, list[int]] = {name: [] for name in models}
    for _ in range(effort.rounds):
        for name, session in sessions.items():
            for _ in range(effort.runs):
                started = clock()
                session.run([OUTPUT], feed)
                taken[name].append(clock() - started)
    return {name: summarize(nanoseconds) for name, nanoseconds in taken.items()}


def summarize(nanoseconds: list[int]) -> Latency:
    """Median and 95th percentile of single runs."""
    p50, p95 = np.percentile(np.asarray(nanoseconds), (50, 95)) / 1000.0
    return Latency(p50=float(p50), p95=float(p95), runs=len(nanoseconds))
