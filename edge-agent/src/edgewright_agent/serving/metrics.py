"""Prometheus metrics of the server process. Labels are closed sets: loaded models, their labels, fixed outcomes.

What the hot path counts are plain integers (`Tally`), turned into samples only when someone scrapes.
"""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from edgewright_agent.serving.slots import Loaded
    from edgewright_agent.serving.spread import Spread

_BUCKETS: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_STATES = ("Shadow", "Live")


class Tally:
    """Counts of one model name since the process began, all its versions together."""

    __slots__ = ("buckets", "error", "invalid", "ok", "seconds", "shed")

    def __init__(self) -> None:
        self.ok = self.invalid = self.error = self.shed = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(_BUCKETS) + 1)

    def took(self, seconds: float) -> None:
        """One call of the engine took so many seconds for each window."""
        self.buckets[bisect_left(_BUCKETS, seconds)] += 1
        self.seconds += seconds


class _Tallies(Collector):
    """All tallies as Prometheus families."""

    def __init__(self) -> None:
        self.by_model: dict[str, Tally] = {}

    def collect(self) -> Iterator[Metric]:
        took = HistogramMetricFamily(
            "edgewright_inference_seconds", "Seconds of one window in the engine.", labels=["model"]
        )
        done = CounterMetricFamily(
            "edgewright_inferences", "Windows answered, and requests shed.", labels=["model", "outcome"]
        )
        for model, tally in self.by_model.items():
            edges = (*(str(bucket) for bucket in _BUCKETS), "+Inf")
            took.add_metric([model], list(zip(edges, accumulate(tally.buckets), strict=True)), tally.seconds)
            for outcome in ("ok", "invalid", "error", "shed"):
                done.add_metric([model, outcome], getattr(tally, outcome))
        yield took
        yield done


class _Spreads(Collector):
    """How far each live model's answers and inputs are from what its release was validated on, where it says it."""

    def __init__(self) -> None:
        self.by_model: dict[str, Spread] = {}

    def collect(self) -> Iterator[Metric]:
        unknown = GaugeMetricFamily(
            "edgewright_unknown_ratio", "Share of own windows without a known appliance.", labels=["model"]
        )
        drift = GaugeMetricFamily(
            "edgewright_drift_score", "Population stability index, less what chance gives.", labels=["model", "of"]
        )
        for model, spread in self.by_model.items():
            if (ratio := spread.unknown_ratio()) is not None:
                unknown.add_metric([model], ratio)
            for of, score in spread.drift().items():
                drift.add_metric([model, of], score)
        yield unknown
        yield drift


class Metrics:
    """All metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        p = "edgewright_"
        self._tallies = _Tallies()
        registry.register(self._tallies)
        self._spreads = _Spreads()
        registry.register(self._spreads)
        self.window_seconds = Gauge(p + "window_seconds", "Length of the input window.", ["model"], registry=registry)
        self.model_info = Gauge(p + "model_info", "The live model.", ["model", "release", "variant"], registry=registry)
        self.model_state = Gauge(p + "model_state", "1 for each state held.", ["model", "state"], registry=registry)
        self.swap_seconds = Histogram(
            p + "swap_seconds",
            "Seconds of a swap.",
            ["model"],
            buckets=(1e-5, 1e-4, 1e-3, 1e-2, 0.1),
            registry=registry,
        )
        self.selftest_failures = Counter(p + "selftest_failures", "Loads that failed.", registry=registry)
        self.agreement = Gauge(
            p + "agreement_ratio", "Share of windows where shadow and live agree.", ["model"], registry=registry
        )
        self.power = Gauge(p + "appliance_power_watts", "Watts of the appliance now.", ["appliance"], registry=registry)
        self.energy = Counter(
            p + "appliance_energy_joules", "Joules attributed to the appliance.", ["appliance"], registry=registry
        )
        self.gap_seconds = Counter(p + "source_gap_seconds", "Seconds without a reading.", registry=registry)
        self._info: dict[str, tuple[str, str]] = {}

    def tally(self, name: str) -> Tally:
        """The counts of this model name."""
        return self._tallies.by_model.setdefault(name, Tally())

    def show(self, name: str, live: "Loaded | None", shadow: "Loaded | None") -> None:
        """Set what is loaded under this name; labels of what is gone go too, so that they stay bounded."""
        if name in self._info:
            self.model_info.remove(name, *self._info.pop(name))
        for state, held in zip(_STATES, (shadow, live), strict=True):
            self.model_state.labels(name, state).set(0 if held is None else 1)
        self._spreads.by_model.pop(name, None)
        if live is not None and live.figures.spread is not None:
            self._spreads.by_model[name] = live.figures.spread
        if live is not None:
            self._info[name] = (str(live.model.version), live.model.variant)
            self.model_info.labels(name, *self._info[name]).set(1)
            self.window_seconds.labels(name).set(live.model.window.seconds)
        if live is None and shadow is None:
            for state in _STATES:
                self.model_state.remove(name, state)
            for family in (self.window_seconds, self.agreement, self.swap_seconds):
                family.remove_by_labels({"model": name})
            self._tallies.by_model.pop(name, None)
