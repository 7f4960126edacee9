"""What latency and memory are compared with: the release before on the same node, else its class. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from edgewright_contract.compressedmodel_status import HardwareClassStatus
from edgewright_contract.edgenode import Figures
from edgewright_operator.facts import NodeFacts


@dataclass(frozen=True, slots=True)
class Baseline:
    """Medians of a class under the release before; 0: not known."""

    p95_microseconds: float = 0.0
    rss_bytes: float = 0.0


def of_classes(
    nodes: Iterable[NodeFacts], manifest: str, recorded: Sequence[HardwareClassStatus]
) -> dict[str, Baseline]:
    """Of each class: the nodes that serve another release right now; where there is none, what was recorded before."""
    latencies: dict[str, list[int]] = {}
    memories: dict[str, list[int]] = {}
    for node in nodes:
        figures = _of_another(node, manifest)
        if figures is None:
            continue
        if figures.samples and figures.p95_microseconds:
            latencies.setdefault(node.hardware_class, []).append(figures.p95_microseconds)
        if figures.rss_bytes:
            memories.setdefault(node.hardware_class, []).append(figures.rss_bytes)
    known = {entry.name: entry for entry in recorded}
    found = {}
    for name in known.keys() | latencies.keys() | memories.keys():
        entry = known.get(name)
        found[name] = Baseline(
            median(latencies[name]) if name in latencies else float((entry and entry.baseline_p95_microseconds) or 0),
            median(memories[name]) if name in memories else float((entry and entry.baseline_rss_bytes) or 0),
        )
    return found


def known(node: NodeFacts, figures: Figures | None, baselines: Mapping[str, Baseline]) -> Baseline:
    """What the node is compared with: what it measured itself before, else what is usual in its class."""
    usual = baselines.get(node.hardware_class, Baseline())
    if figures is None:
        return usual
    return Baseline(
        figures.previous_p95_microseconds or usual.p95_microseconds, figures.previous_rss_bytes or usual.rss_bytes
    )


def p95_ratio(node: NodeFacts, figures: Figures, baselines: Mapping[str, Baseline], floor: float) -> float | None:
    """The node's p95 over what it is compared with, each of at least `floor` microseconds; none: nothing is known."""
    before = known(node, figures, baselines).p95_microseconds
    if not before or not figures.p95_microseconds:
        return None
    return max(figures.p95_microseconds, floor) / max(before, floor)


def rss_ratio(node: NodeFacts, figures: Figures, baselines: Mapping[str, Baseline]) -> float | None:
    """The same for the memory of the server."""
    before = known(node, figures, baselines).rss_bytes
    return figures.rss_bytes / before if before and figures.rss_bytes else None


def _of_another(node: NodeFacts, manifest: str) -> Figures | None:
    served = node.status.live if node.status else None
    if served is None or served.manifest == manifest or not node.reachable:
        return None
    return node.figures(served.manifest)
