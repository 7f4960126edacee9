"""In place of traces.read where there is no data: made-up days of made-up devices, to exercise all stages.

Figures from them say nothing about real appliances; whoever shows such figures shows BANNER beside them.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt

from edgewright_pipelines.data.parse import DAY_SECONDS
from edgewright_pipelines.data.traces import Trace

BANNER = (
    "MADE-UP DATA: no traces were found, so these were generated; no figure here says anything about real appliances."
)
GENERATED = "generated"  # the subset of such traces: none of the data set's own, so that nothing can mix them up

_FIRST_DAY = date(2024, 1, 1)
_MINUTE, _HOUR = 60, 3600

Power = npt.NDArray[np.float64]  # watts [86400]
Behavior = Callable[[np.random.Generator, np.random.Generator], Power]  # (device's dice, day's dice)


def generate(*, seed: int, classes: Sequence[str] | None = None, devices: int = 3, days: int = 8) -> list[Trace]:
    """`devices` times `days` traces of each class (all that are known by default), the same for the same arguments.

    Raises ValueError for a class without a behavior and for counts below one.
    """
    names = list(BEHAVIORS if classes is None else classes)
    if unknown := sorted(set(names) - BEHAVIORS.keys()):
        raise ValueError(f"No behavior is known for {unknown[0]}; known: {', '.join(BEHAVIORS)}.")
    if devices < 1 or days < 1:
        raise ValueError(f"{devices} devices and {days} days cannot be made; both must be 1 or more.")
    return [
        _trace(name, device, day, seed) for name in sorted(names) for device in range(devices) for day in range(days)
    ]


def _trace(name: str, device: int, day: int, seed: int) -> Trace:
    kind = list(BEHAVIORS).index(name)
    power = BEHAVIORS[name](
        np.random.default_rng([seed, kind, device]), np.random.default_rng([seed, kind, device, day])
    )
    when = (_FIRST_DAY + timedelta(days=day)).isoformat()
    return Trace(
        name=f"{GENERATED}/{name}/device{device:02d}_{when}",
        appliance=name,
        device=f"{name}/device{device:02d}",
        subset=GENERATED,
        date=when,
        watts=np.clip(np.rint(power), 0, 65_535).astype(np.uint16),
        gap_seconds=0,
    )


def _runs(power: Power, starts: Sequence[int], shape: Power) -> Power:
    """Lay one load shape at several seconds of the day, cut off at midnight."""
    for start in starts:
        end = min(DAY_SECONDS, start + len(shape))
        power[start:end] = shape[: end - start]
    return power


def _noise(dice: np.random.Generator, sigma: float) -> Power:
    return dice.normal(0, sigma, DAY_SECONDS)


def _moments(dice: np.random.Generator, count: int, first_hour: float, last_hour: float) -> list[int]:
    return sorted(int(hour * _HOUR) for hour in dice.uniform(first_hour, last_hour, count))


def _refrigerator(device: np.random.Generator, day: np.random.Generator) -> Power:
    watts, on, off = device.uniform(60, 130), device.uniform(8, 20) * _MINUTE, device.uniform(20, 45) * _MINUTE
    power, second = np.zeros(DAY_SECONDS), int(day.uniform(0, off))
    while second < DAY_SECONDS:
        length = max(_MINUTE, int(on * day.uniform(0.8, 1.2)))
        shape = watts * (1 + 0.25 * np.exp(-np.arange(length) / 120))
        shape[:2] = watts * 6  # a compressor's inrush
        _runs(power, [second], shape)
        second += length + int(off * day.uniform(0.8, 1.2))
    return np.where(power > 0, power + _noise(day, 1), 0)


def _kettle(device: np.random.Generator, day: np.random.Generator) -> Power:
    watts, base = device.uniform(1700, 2300), np.zeros(DAY_SECONDS)
    for start in _moments(day, int(day.integers(3, 9)), 6, 22):
        _runs(base, [start], np.full(int(day.uniform(80, 260)), watts))
    return np.where(base > 0, base + _noise(day, 6), 0)


def _toaster(device: np.random.Generator, day: np.random.Generator) -> Power:
    watts, base = device.uniform(700, 1000), np.zeros(DAY_SECONDS)
    for start in _moments(day, int(day.integers(2, 5)), 6, 11):
        _runs(base, [start], np.full(int(day.uniform(90, 180)), watts))
    return np.where(base > 0, base + _noise(day, 3), 0)


def _router(device: np.random.Generator, day: np.random.Generator) -> Power:
    return device.uniform(5, 10) + _noise(day, 0.5) + (day.random(DAY_SECONDS) < 0.02)


def _washing_machine(device: np.random.Generator, day: np.random.Generator) -> Power:
    heat, motor = device.uniform(1800, 2200), device.uniform(90, 200)
    shape = np.concatenate(
        [
            np.full(5 * _MINUTE, motor / 3),
            np.full(int(day.uniform(12, 20)) * _MINUTE, heat),
            np.tile(np.repeat([motor, 4.0], [14, 8]), int(day.uniform(90, 140))),
            np.linspace(motor, motor * 3, 8 * _MINUTE),
        ]
    )
    power = _runs(np.full(DAY_SECONDS, 1.0), _moments(day, 2, 7, 20), shape)
    return power + np.where(power > 3, _noise(day, 4), 0)


def _laptop(device: np.random.Generator, day: np.random.Generator) -> Power:
    base = device.uniform(18, 35)
    steps = np.repeat(day.uniform(0, base, DAY_SECONDS // 40), 40)
    working = np.zeros(DAY_SECONDS, dtype=bool)
    for start in _moments(day, 3, 8, 20):
        working[start : start + int(day.uniform(1, 3) * _HOUR)] = True
    return np.where(working, base + steps + _noise(day, 2), device.uniform(0, 1.4))


def _television(device: np.random.Generator, day: np.random.Generator) -> Power:
    watts, standby = device.uniform(80, 180), device.uniform(0.6, 3)
    evening = np.zeros(DAY_SECONDS, dtype=bool)
    start = int(day.uniform(17, 20) * _HOUR)
    evening[start : start + int(day.uniform(1.5, 4) * _HOUR)] = True
    picture = np.repeat(day.normal(0, watts * 0.08, DAY_SECONDS // 5), 5)
    return np.where(evening, watts + picture, standby)


def _lamp(device: np.random.Generator, day: np.random.Generator) -> Power:
    watts, power = device.uniform(11, 60), np.zeros(DAY_SECONDS)
    for start in (*_moments(day, 1, 6, 7), *_moments(day, 1, 16, 19)):
        _runs(power, [start], watts * (1 + 0.05 * np.exp(-np.arange(int(day.uniform(1, 4) * _HOUR)) / 300)))
    return np.where(power > 0, power + _noise(day, 0.4), 0)


BEHAVIORS: Mapping[str, Behavior] = {
    "Refrigerator": _refrigerator,
    "WaterKettle": _kettle,
    "Toaster": _toaster,
    "Router": _router,
    "Washingmachine": _washing_machine,
    "PC-Laptop": _laptop,
    "TV-LCD": _television,
    "Lamp": _lamp,
}
