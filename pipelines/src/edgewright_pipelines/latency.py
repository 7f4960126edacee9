"""Beside `evaluate.measure`: how long one window takes, for several files fairly, because their rounds alternate."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from edgewright_pipelines import rapl
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
    """Microseconds of one window, batch 1, one thread.

    cpu: processor time of one window, the proxy of the energy that a node spends; joules: energy of the processor
    package for one window, where RAPL can be read (it holds whatever else the machine did).
    """

    p50: float
    p95: float
    runs: int
    cpu: float | None = None
    joules: float | None = None


def measure(
    models: Mapping[str, bytes],
    example: npt.NDArray[Any],
    *,
    effort: Effort | None = None,
    clock: Clock = time.perf_counter_ns,
    cpu_clock: Clock = time.process_time_ns,
    counter: rapl.Counter | None = None,
) -> dict[str, Latency]:
    """Latency of each file on one window `example` [window]; a busy moment of the machine meets all files alike."""
    effort = effort or Effort()
    feed = {INPUT: np.ascontiguousarray(example, dtype=np.float32)[None, None, :]}
    sessions = {name: opened(model) for name, model in models.items()}
    for session in sessions.values():
        for _ in range(effort.warmup):
            session.run([OUTPUT], feed)
    counter = counter or rapl.found()
    spent = {name: _Spent() for name in models}
    for _ in range(effort.rounds):
        for name, session in sessions.items():
            _round(session, feed, effort.runs, spent[name], clock, cpu_clock, counter)
    return {name: entry.summarized() for name, entry in spent.items()}


@dataclass(slots=True)
class _Spent:
    nanoseconds: list[int] = field(default_factory=list)
    cpu: int = 0
    joules: float | None = None

    def summarized(self) -> Latency:
        runs = len(self.nanoseconds)
        joules = None if self.joules is None else self.joules / runs
        return replace(summarize(self.nanoseconds), cpu=self.cpu / runs / 1000.0, joules=joules)


def _round(
    session: onnxruntime.InferenceSession,
    feed: Mapping[str, npt.NDArray[np.float32]],
    runs: int,
    spent: _Spent,
    clock: Clock,
    cpu_clock: Clock,
    counter: rapl.Counter | None,
) -> None:
    energy, cpu = counter.read() if counter else 0.0, cpu_clock()
    for _ in range(runs):
        started = clock()
        session.run([OUTPUT], feed)
        spent.nanoseconds.append(clock() - started)
    spent.cpu += cpu_clock() - cpu
    if counter:
        spent.joules = (spent.joules or 0.0) + counter.since(energy)


def summarize(nanoseconds: list[int]) -> Latency:
    """Median and 95th percentile of single runs."""
    p50, p95 = np.percentile(np.asarray(nanoseconds), (50, 95)) / 1000.0
    return Latency(p50=float(p50), p95=float(p95), runs=len(nanoseconds))
