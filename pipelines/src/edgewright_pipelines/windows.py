"""Second stage, `traces.read → windows.cut → train.fit`: cuts traces into the fixed-length windows a model sees."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgewright_pipelines.data.traces import Trace

ACTIVE_WATTS = 2
ACTIVE_FRACTION = 0.02
STRONG_WATTS = 15

Bools = npt.NDArray[np.bool_]
Watts = npt.NDArray[np.uint16]


class WindowError(ValueError):
    """Traces that cannot be cut as asked; the text says what to change."""


@dataclass(frozen=True, slots=True)
class WindowSet:
    """Windows of several days, in the order of the days and, inside a day, of time.

    watts: uint16 [n, window]; label: int16 [n], index into classes; day: int32 [n], index into days, which names
    every trace that was cut, also those without a window left.
    """

    watts: npt.NDArray[np.uint16]
    label: npt.NDArray[np.int16]
    day: npt.NDArray[np.int32]
    days: tuple[str, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.watts)

    def select(self, mask: Bools) -> "WindowSet":
        """The windows where `mask` [n] is true; days and classes keep their numbers."""
        return WindowSet(self.watts[mask], self.label[mask], self.day[mask], self.days, self.classes)


def is_active(watts: Watts) -> bool:
    """Whether more than 2 % of a window's seconds stand at 2 W or more."""
    return bool(np.count_nonzero(watts >= ACTIVE_WATTS) > ACTIVE_FRACTION * len(watts))


def strong(windows: WindowSet, classes: Sequence[str]) -> Bools:
    """Mask [n] of the strong subset: windows of `classes` (see splits.strong_classes) that reach 15 W."""
    wanted = np.array([name in classes for name in windows.classes], dtype=bool)
    reaches = np.zeros(len(windows), dtype=bool)
    for start in range(0, len(windows), 4096):  # in pieces: the maximum of a whole set at once would read it all
        reaches[start : start + 4096] = windows.watts[start : start + 4096].max(axis=1) >= STRONG_WATTS
    mask: Bools = reaches & wanted[windows.label]
    return mask


def starts(watts: Watts, *, window: int, hop: int, active_only: bool = True) -> npt.NDArray[np.int64]:
    """First seconds of the windows of one trace, a hop apart; only whole windows."""
    first = np.arange(0, len(watts) - window + 1, hop, dtype=np.int64)
    if not active_only or not len(first):
        return first
    running = np.concatenate(([0], np.cumsum(watts >= ACTIVE_WATTS)))
    return first[running[first + window] - running[first] > ACTIVE_FRACTION * window]


def cut(
    traces: Sequence[Trace], classes: Sequence[str], *, window: int, hop: int, active_only: bool = True
) -> WindowSet:
    """Cut all traces; `active_only` leaves out windows in which the appliance hardly draws power.

    Raises WindowError for a window or hop that cannot be cut and for a trace whose class is not in `classes`.
    """
    _check(window, hop)
    label_of = {name: index for index, name in enumerate(classes)}
    if strange := sorted({trace.appliance for trace in traces} - label_of.keys()):
        raise WindowError(f"Traces of class {strange[0]} were given, but the classes are {', '.join(classes)}.")
    picked = [starts(trace.watts, window=window, hop=hop, active_only=active_only) for trace in traces]
    counts = [len(first) for first in picked]
    watts = np.empty(
        (sum(counts), window), dtype=np.uint16
    )  # filled in place: a list of parts would need twice as much
    for rows, trace, first in zip(_rows(counts), traces, picked, strict=True):
        watts[rows] = np.lib.stride_tricks.sliding_window_view(trace.watts, window)[first] if len(first) else 0
    labels = np.array([label_of[trace.appliance] for trace in traces], dtype=np.int16)
    return WindowSet(
        watts=watts,
        label=np.repeat(labels, counts),
        day=np.repeat(np.arange(len(traces), dtype=np.int32), counts),
        days=tuple(trace.name for trace in traces),
        classes=tuple(classes),
    )


def _check(window: int, hop: int) -> None:
    if window < 1 or hop < 1:
        raise WindowError(f"A window of {window} s and a hop of {hop} s cannot be cut; both must be 1 s or more.")


def _rows(counts: Sequence[int]) -> Iterator[slice]:
    start = 0
    for count in counts:
        yield slice(start, start + count)
        start += count
