"""Prometheus metrics of the server process. Labels are closed sets: loaded models, their labels, fixed outcomes."""

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from edgewright_agent.serving.slots import Loaded

_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_STATES = ("Shadow", "Live")


class Metrics:
    """All metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        p = "edgewright_"
        self.inference_seconds = Histogram(
            p + "inference_seconds",
            "Seconds of one window in the engine.",
            ["model"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.inferences = Counter(p + "inferences", "Windows answered.", ["model", "outcome"], registry=registry)
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

    def show(self, name: str, live: "Loaded | None", shadow: "Loaded | None") -> None:
        """Set what is loaded under this name; labels of what is gone go too, so that they stay bounded."""
        if name in self._info:
            self.model_info.remove(name, *self._info.pop(name))
        for state, held in zip(_STATES, (shadow, live), strict=True):
            self.model_state.labels(name, state).set(0 if held is None else 1)
        if live is not None:
            self._info[name] = (str(live.model.version), live.model.variant)
            self.model_info.labels(name, *self._info[name]).set(1)
            self.window_seconds.labels(name).set(live.model.window.seconds)
        if live is None and shadow is None:
            for state in _STATES:
                self.model_state.remove(name, state)
            for family in (self.window_seconds, self.agreement, self.inference_seconds, self.swap_seconds):
                family.remove_by_labels({"model": name})
            self.inferences.remove_by_labels({"model": name})
