"""Inside traces.read: which traces are proven copies of others, and which labels are doubtful; pure."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgewright_pipelines.data.names import Subset

if TYPE_CHECKING:
    from edgewright_pipelines.data.traces import Trace

MIN_CHANGES = 20  # flat days can be equal by chance; with so many equal changes in the same seconds they are copies
BUILT_FROM = 0.8  # part of the powered seconds in which a synthetic day equals the real day it was made from

# Found by looking at the traces, not proven: kept, and named in the report.
_DOUBTFUL = {
    "Monitor-TFT/B81116": "behaves like a PC-Desktop, not like a monitor",
    "Refrigerator/B1C121": "does not cycle as a refrigerator does",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Trace or device name -> second half of a sentence."""

    dropped: Mapping[str, str]
    suspected: Mapping[str, str]


def judge(traces: Sequence["Trace"]) -> Verdict:
    """Find copies: equal days, and devices that are another class's device under a second label."""
    copies = _copies(traces)
    dropped = {copy.name: f"has the same readings as {original.name}" for copy, original in copies}
    dropped |= _relabeled(traces, copies)
    kept = [trace for trace in traces if trace.name not in dropped]
    return Verdict(dropped=dropped, suspected=_suspected(kept))


def _copies(traces: Sequence["Trace"]) -> list[tuple["Trace", "Trace"]]:
    """Pairs (copy, original). The original is real before synthetic, then of the device with more days, then first."""
    sizes = Counter(trace.device for trace in traces)
    equal: dict[bytes, list[Trace]] = defaultdict(list)
    for trace in traces:
        if np.count_nonzero(np.diff(trace.watts)) >= MIN_CHANGES:
            equal[hashlib.sha256(trace.watts.tobytes()).digest()].append(trace)
    pairs = []
    for found in equal.values():
        original, *rest = sorted(found, key=lambda t: (t.subset == Subset.SYNTHETIC, -sizes[t.device], t.name))
        pairs += [(copy, original) for copy in rest]
    return pairs


def _relabeled(traces: Sequence["Trace"], copies: Iterable[tuple["Trace", "Trace"]]) -> dict[str, str]:
    """The other days of a device most of whose days copy the same plug under another class: one device, two labels."""
    pairs = Counter((c.device, o.device) for c, o in copies if c.appliance != o.appliance and _plug(c) == _plug(o))
    sizes = Counter(trace.device for trace in traces)
    labels = {copy: original for (copy, original), count in pairs.items() if count >= 2 and 2 * count > sizes[copy]}
    copied = {copy.name for copy, _ in copies}
    return {
        trace.name: f"is of device {trace.device}, most of whose days have the same readings as {labels[trace.device]}"
        for trace in traces
        if trace.device in labels and trace.name not in copied
    }


def _plug(trace: "Trace") -> str:
    return trace.device.removeprefix(f"{trace.appliance}/")


def _suspected(traces: Sequence["Trace"]) -> dict[str, str]:
    devices = {trace.device for trace in traces}
    suspected = {device: sentence for device, sentence in _DOUBTFUL.items() if device in devices}
    for first, second in _pairs_of_one_date(traces):
        if first.device != second.device and _plug(first) == _plug(second) and first.subset != Subset.SYNTHETIC:
            suspected[second.name] = f"and {first.name} come from one plug on one day, under two classes"
        elif Subset.SYNTHETIC in (first.subset, second.subset) and _built_from(first, second):
            suspected[second.name] = f"holds mostly the same readings as {first.name}, under another class"
    return suspected


def _pairs_of_one_date(traces: Iterable["Trace"]) -> Iterable[tuple["Trace", "Trace"]]:
    """Pairs of two classes on one date, the real trace first."""
    dates: dict[str, list[Trace]] = defaultdict(list)
    for trace in sorted(traces, key=lambda t: (t.subset == Subset.SYNTHETIC, t.name)):
        dates[trace.date].append(trace)
    for found in dates.values():
        for place, first in enumerate(found):
            yield from ((first, second) for second in found[place + 1 :] if second.appliance != first.appliance)


def _built_from(first: "Trace", second: "Trace") -> bool:
    powered = (first.watts > 1) | (second.watts > 1)
    seconds = np.count_nonzero(powered)
    return bool(seconds >= 600 and np.count_nonzero((first.watts == second.watts) & powered) >= BUILT_FROM * seconds)
