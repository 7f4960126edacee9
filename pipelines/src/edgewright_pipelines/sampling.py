"""Inside training: draws windows; frequent classes and devices lead, but only by the square root of their days."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgewright_pipelines import augment, windows
from edgewright_pipelines.data.traces import Trace
from edgewright_pipelines.recipe import Augmentation

BALANCE = 0.5  # exponent of the number of days
GRID_SECONDS = 64  # active starts are looked up on this grid and moved inside it at random


class SamplingError(ValueError):
    """Training days that cannot be drawn from; the text says what is missing."""


class Draws(Protocol):
    """Batches for training: watts float32 [batch, 1, seconds] and what is true of them."""

    @property
    def seconds(self) -> int:
        """Length of a window."""

    def draw(self, batch: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
        """The next batch."""


@dataclass(frozen=True, slots=True)
class Device:
    """One device's days that hold an active window: traces and, for each, the first seconds of its active windows."""

    label: int
    traces: tuple[Trace, ...]
    starts: tuple[npt.NDArray[np.int64], ...]


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws batches from training days; the same generator draws the same batches."""

    devices: tuple[Device, ...]
    odds: npt.NDArray[np.float64]
    seconds: int
    how: Augmentation

    def draw(self, batch: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Changed windows float32 [batch, 1, seconds] and their labels int64 [batch]."""
        watts = np.empty((batch, 1, self.seconds), dtype=np.float32)
        labels = np.empty(batch, dtype=np.int64)
        for row, index in enumerate(rng.choice(len(self.devices), batch, p=self.odds)):
            device = self.devices[index]
            day = int(rng.integers(len(device.traces)))
            series = device.traces[day].watts
            start = int(rng.choice(device.starts[day])) + int(rng.integers(GRID_SECONDS))
            start = min(start, len(series) - self.seconds)
            watts[row, 0] = augment.window(series, start, self.seconds, self.how, rng)
            labels[row] = device.label
        return watts, labels

    def prior_shift(self, classes: int) -> npt.NDArray[np.float64]:
        """For each class the log of its share of the active windows over its share of the drawn ones; 0 without any.

        Added to logits that were trained on drawn windows, it gives those for windows as they come (Saerens, Latinne
        and Decaestecker, Neural Computation 14, 2002).
        """
        labels = [device.label for device in self.devices]
        windows = [sum(len(first) for first in device.starts) for device in self.devices]
        real, drawn = (np.bincount(labels, weights=part, minlength=classes) for part in (windows, self.odds))
        seen = real > 0
        shift = np.zeros(classes)
        shift[seen] = np.log(real[seen] / real.sum()) - np.log(drawn[seen])
        return shift


def sampler(traces: Sequence[Trace], classes: Sequence[str], seconds: int, how: Augmentation) -> Sampler:
    """Odds of a class and, inside it, of a device go with days^0.5.

    Raises SamplingError if no day has an active window.
    """
    devices = _devices(traces, classes, seconds)
    if not devices:
        raise SamplingError(
            f"None of the {len(traces)} training days has an active window of {seconds} s;"
            " check the data or use a shorter window.seconds."
        )
    days = np.array([len(device.traces) for device in devices], dtype=np.float64)
    labels = np.array([device.label for device in devices])
    odds = days**BALANCE
    for label in np.unique(labels):
        same = labels == label
        odds[same] *= days[same].sum() ** BALANCE / odds[same].sum()
    return Sampler(devices, odds / odds.sum(), seconds, how)


def _devices(traces: Sequence[Trace], classes: Sequence[str], seconds: int) -> tuple[Device, ...]:
    label_of = {name: index for index, name in enumerate(classes)}
    found = []
    for (appliance, _), group in groupby(sorted(traces, key=_key), key=lambda trace: (trace.appliance, trace.device)):
        days = [(trace, windows.starts(trace.watts, window=seconds, hop=GRID_SECONDS)) for trace in group]
        active = [(trace, first) for trace, first in days if len(first)]
        if active:
            found.append(Device(label_of[appliance], *(tuple(part) for part in zip(*active, strict=True))))
    return tuple(found)


def _key(trace: Trace) -> tuple[str, str, str]:
    return trace.appliance, trace.device, trace.name
