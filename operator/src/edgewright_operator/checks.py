"""What each check of a gate reads from a node: a value, how many samples it rests on, the evidence against it. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from math import isfinite

from edgewright_contract.compressedmodel import Gates
from edgewright_contract.edgenode import Figures
from edgewright_contract.quantities import seconds
from edgewright_operator import baselines, evidence
from edgewright_operator.baselines import Baseline
from edgewright_operator.facts import NodeFacts

_LEAST_TIMED = 20
"""A 95th percentile of fewer windows says nothing."""


class Check(StrEnum):
    """The checks of a gate, as they stand in status.gate and in metrics."""

    NODES = "nodes"
    ERRORS = "errorRate"
    P95 = "p95Ratio"
    AGREEMENT = "agreement"
    UNKNOWN = "unknownRatio"
    DRIFT = "drift"
    RSS = "rssRatio"


@dataclass(frozen=True, slots=True)
class Reading:
    """What one node says in one check. `against` is the log e-value of its being beyond the limit."""

    node: NodeFacts
    value: float
    samples: int
    against: float


@dataclass(frozen=True, slots=True)
class Asked:
    """One check of this gate: its limit, which side of it is bad, and what the nodes say."""

    check: Check
    limit: float
    at_least: bool
    """True: the value must not be below the limit."""
    rate: bool
    """Whether values are shares to be averaged over samples; else their median counts."""
    nodes: frozenset[str]
    """Who is asked: nodes that serve the release and, where the check compares, have something to compare with."""
    readings: tuple[Reading, ...]


def asked(nodes: Sequence[NodeFacts], gates: Gates, manifest: str, before: Mapping[str, Baseline]) -> Iterator[Asked]:
    """The checks that apply, over nodes that serve the release. One that compares needs something to compare with."""
    compared = [(node, baselines.known(node, node.figures(manifest), before)) for node in nodes]
    timed = [node for node, usual in compared if usual.p95_microseconds]
    weighed = [node for node, usual in compared if usual.rss_bytes]
    replacing = [node for node in nodes if _replaces(node, manifest)] if gates.min_agreement > 0 else []
    slowest, least, heaviest = gates.max_p95_ratio, gates.min_agreement, gates.max_rss_ratio
    yield _asked(Check.ERRORS, gates.max_error_rate, nodes, manifest, lambda _, it: _errors(it, gates.max_error_rate))
    if timed:
        read = partial(_p95, before=before, limit=slowest, floor=seconds(gates.p95_floor) * 1e6)
        yield _asked(Check.P95, slowest, timed, manifest, read, rate=False)
    if replacing:
        yield _asked(Check.AGREEMENT, least, replacing, manifest, lambda _, it: _agreement(it, least), at_least=True)
    if (most := gates.max_unknown_ratio) is not None:
        yield _asked(Check.UNKNOWN, most, nodes, manifest, lambda _, it: _share(it, it.unknown_ratio, most))
    if (far := gates.max_drift) is not None:
        yield _asked(Check.DRIFT, far, nodes, manifest, lambda _, it: _drift(it, far), rate=False)
    if weighed:
        read = partial(_rss, before=before, limit=heaviest)
        yield _asked(Check.RSS, heaviest, weighed, manifest, read, rate=False)


_Read = Callable[[NodeFacts, Figures], tuple[float, int, float] | None]


def _asked(
    check: Check,
    limit: float,
    nodes: Sequence[NodeFacts],
    manifest: str,
    read: _Read,
    *,
    at_least: bool = False,
    rate: bool = True,
) -> Asked:
    readings = []
    for node in nodes:
        figures = node.figures(manifest)
        found = None if figures is None else read(node, figures)
        if found is not None and isfinite(found[0]):
            readings.append(Reading(node, *found))
    return Asked(check, limit, at_least, rate, frozenset(node.name for node in nodes), tuple(readings))


def _replaces(node: NodeFacts, manifest: str) -> bool:
    """Whether the node served another release before, so that the two can be compared."""
    before = node.status.previous if node.status else None
    return before is not None and before.manifest != manifest


def _errors(figures: Figures, limit: float) -> tuple[float, int, float] | None:
    windows = max(figures.samples, figures.errors)
    if not windows:
        return None
    rate = figures.errors / windows
    trials = figures.effective_samples or windows  # windows that overlap fail together: they count as fewer
    return rate, figures.effective_samples, evidence.rate_above(rate * trials, trials, limit)


def _share(figures: Figures, value: float | None, limit: float) -> tuple[float, int, float] | None:
    samples = figures.effective_samples
    if value is None or not samples:
        return None
    return value, samples, evidence.rate_above(value * samples, samples, limit)


def _agreement(figures: Figures, limit: float) -> tuple[float, int, float] | None:
    found = None if figures.agreement is None else _share(figures, 1.0 - figures.agreement, 1.0 - limit)
    return None if found is None else (1.0 - found[0], found[1], found[2])


def _drift(figures: Figures, limit: float) -> tuple[float, int, float] | None:
    samples = figures.effective_samples
    if figures.drift is None or not samples:
        return None
    return figures.drift, samples, evidence.ratio_above(figures.drift, limit) if limit else 0.0


def _p95(
    node: NodeFacts, figures: Figures, before: Mapping[str, Baseline], limit: float, floor: float
) -> tuple[float, int, float] | None:
    ratio = baselines.p95_ratio(node, figures, before, floor) if figures.samples >= _LEAST_TIMED else None
    return None if ratio is None else (ratio, figures.effective_samples, evidence.ratio_above(ratio, limit))


def _rss(
    node: NodeFacts, figures: Figures, before: Mapping[str, Baseline], limit: float
) -> tuple[float, int, float] | None:
    ratio = baselines.rss_ratio(node, figures, before)
    return None if ratio is None else (ratio, figures.effective_samples, evidence.ratio_above(ratio, limit))
