"""Between traces and windows: fixed, named divisions of days into train, validation and test; pure, by seed."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgewright_pipelines.data.names import Subset
from edgewright_pipelines.data.traces import Trace
from edgewright_pipelines.windows import starts

TEST_FRACTION = 0.20
VALIDATION_FRACTION = 0.13
STRONG_MIN_DEVICES = 5


class SplitError(ValueError):
    """Traces that cannot be divided as asked; the text says what is missing."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Three sides without a day (by day) or a device (by device) in common; `name` goes into every figure."""

    classes: tuple[str, ...]
    train: tuple[Trace, ...]
    validation: tuple[Trace, ...]
    test: tuple[Trace, ...]
    name: str


Day = tuple[Trace, ...]  # traces that must stay together
Sides = tuple[list[Trace], list[Trace], list[Trace]]  # train, validation, test


def by_day(
    traces: Sequence[Trace], *, min_days: int = 8, seed: int, top: int | None = None, window: int = 4096, hop: int = 512
) -> Split:
    """Divide the days of each class about 67 : 13 : 20, each device in proportion.

    Days without an active window (`window` and `hop` in seconds) take no part. Classes are those with `min_days` days
    or more, at most the `top` most frequent. The first drawn day of a device stays in train, so that no device is
    tested that was never trained, unless its class cannot fill all sides otherwise. Days of one device and date stay
    together, and so do all days of a class on a date of its synthetic ones, which were built from one another.
    Raises SplitError when fewer than two classes are left.
    """
    if min_days < 3:
        raise SplitError(f"min_days is {min_days}; three sides need at least 3 days of a class.")
    days = _days(_powered(traces, window, hop))
    counts = {name: sum(len(day) for day in found) for name, found in days.items()}
    ranked = [name for name in counts if counts[name] >= min_days and len(days[name]) >= 3]
    ranked = sorted(ranked, key=lambda name: (-counts[name], name))[:top]
    _need_classes(ranked, f"have {min_days} days or more", counts, "days")
    sides: Sides = ([], [], [])
    for name in sorted(ranked):
        for side, dealt in zip(sides, _deal_days(days[name], seed), strict=True):
            side.extend(trace for day in dealt for trace in day)
    return _split(ranked, sides, f"by-day seed {seed}, {len(ranked)} classes, {min_days} days or more")


def by_device(
    traces: Sequence[Trace],
    *,
    min_devices: int = 3,
    folds: int = 5,
    fold: int,
    seed: int,
    window: int = 4096,
    hop: int = 512,
) -> Split:
    """Devices of fold `fold` are the test side, those of the next fold validation, the rest train.

    Days without an active window take no part. A class with fewer devices than folds is missing from some test sides:
    pool the folds. Raises SplitError.
    """
    if min_devices < 3:
        raise SplitError(f"min_devices is {min_devices}; train, validation and test each need one, so use 3 or more.")
    if folds < 3 or not 0 <= fold < folds:
        raise SplitError(f"Fold {fold} of {folds} does not exist; use 3 folds or more and a fold from 0 to folds - 1.")
    powered = _powered(traces, window, hop)
    devices = _devices(powered)
    counts = {name: len(found) for name, found in devices.items()}
    classes = sorted(name for name, count in counts.items() if count >= min_devices)
    _need_classes(classes, f"have {min_devices} devices or more", counts, "devices")
    placed = _deal_devices({name: devices[name] for name in classes}, folds, seed)
    sides: Sides = ([], [], [])
    for trace in powered:
        if trace.device in placed:
            turn = (placed[trace.device] - fold) % folds
            sides[{0: 2, 1: 1}.get(turn, 0)].append(trace)
    return _split(classes, sides, f"by-device seed {seed}, fold {fold} of {folds}, {len(classes)} classes")


def strong_classes(traces: Iterable[Trace], min_devices: int = STRONG_MIN_DEVICES) -> tuple[str, ...]:
    """Classes of the strong subset, fixed beforehand: 5 metered devices or more; windows.strong picks the windows.

    Synthetic days are not a device of their own here: they were put together from metered ones.
    """
    metered = _devices(trace for trace in traces if trace.subset != Subset.SYNTHETIC)
    return tuple(sorted(name for name, found in metered.items() if len(found) >= min_devices))


def _powered(traces: Iterable[Trace], window: int, hop: int) -> list[Trace]:
    return [trace for trace in traces if len(starts(trace.watts, window=window, hop=hop))]


def _split(classes: Iterable[str], sides: Sides, name: str) -> Split:
    train, validation, test = (tuple(sorted(side, key=lambda trace: trace.name)) for side in sides)
    for label, side in (("train", train), ("validation", validation), ("test", test)):
        if not side:
            raise SplitError(f"The {label} side of split '{name}' is empty; there are too few devices or days for it.")
    return Split(classes=tuple(sorted(classes)), train=train, validation=validation, test=test, name=name)


def _need_classes(kept: Sequence[str], condition: str, counts: Mapping[str, int], unit: str) -> None:
    if len(kept) >= 2:
        return
    found = ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "no traces at all"
    raise SplitError(f"A split needs two classes that {condition}, but {len(kept)} do; found in {unit}: {found}.")


def _days(traces: Sequence[Trace]) -> dict[str, list[Day]]:
    """class -> groups of traces that must stay on one side."""
    built = {(trace.appliance, trace.date) for trace in traces if trace.subset == Subset.SYNTHETIC}
    grouped: dict[tuple[str, str, str], list[Trace]] = defaultdict(list)
    for trace in sorted(traces, key=lambda trace: trace.name):
        together = (trace.appliance, trace.date) in built
        grouped[trace.appliance, "" if together else trace.device, trace.date].append(trace)
    days: dict[str, list[Day]] = defaultdict(list)
    for (appliance, _, _), found in grouped.items():
        days[appliance].append(tuple(found))
    return dict(days)


def _devices(traces: Iterable[Trace]) -> dict[str, dict[str, int]]:
    """class -> device -> traces."""
    devices: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for trace in traces:
        devices[trace.appliance][trace.device] += 1
    return {name: dict(found) for name, found in devices.items()}


def _order(seed: int, key: str) -> bytes:
    """A random but lasting place in a row: a new day leaves the order of the others alone."""
    return hashlib.sha256(f"{seed}/{key}".encode()).digest()


def _deal_days(days: Sequence[Day], seed: int) -> tuple[list[Day], list[Day], list[Day]]:
    """Train, validation and test days of one class."""
    drawn = sorted(days, key=lambda day: _order(seed, day[0].name))
    pinned = _one_of_each_device(drawn)
    row = sorted((day for day in drawn if day not in pinned), key=lambda day: day[0].device)
    test_count, validation_count = (max(1, round(part * len(days))) for part in (TEST_FRACTION, VALIDATION_FRACTION))
    short = test_count + validation_count - len(row)
    if short > 0:
        row, pinned = row + pinned[:short], pinned[short:]
    test = _evenly(row, test_count)
    rest = [day for day in row if day not in test]
    validation = _evenly(rest, validation_count)
    return pinned + [day for day in rest if day not in validation], validation, test


def _one_of_each_device(days: Sequence[Day]) -> list[Day]:
    """The first day of every device; one day may serve several."""
    pinned: list[Day] = []
    for device in sorted({trace.device for day in days for trace in day}):
        with_device = [day for day in days if any(trace.device == device for trace in day)]
        if not any(day in pinned for day in with_device):
            pinned.append(with_device[0])
    return pinned


def _evenly(row: Sequence[Day], count: int) -> list[Day]:
    """`count` entries at even distances, so that each device gives in proportion to its days."""
    return [row[(2 * index + 1) * len(row) // (2 * count)] for index in range(count)]


def _deal_devices(devices: Mapping[str, Mapping[str, int]], folds: int, seed: int) -> dict[str, int]:
    """device -> fold: each class spread over the folds, big devices first, into the fold with the fewest days."""
    placed: dict[str, int] = {}
    load = [0] * folds
    for name in sorted(devices):
        here = [0] * folds
        for device in sorted(devices[name], key=lambda device: (-devices[name][device], _order(seed, device))):
            fold = min(range(folds), key=lambda fold: (here[fold], load[fold], _order(seed, f"{name}/{fold}")))
            placed[device] = fold
            here[fold] += 1
            load[fold] += devices[name][device]
    return placed
