"""Which variant a hardware class runs: by objective and constraints, as its own nodes measured them. Pure.

Never one that is slower there than its FP32 parent; the FP32 parent itself where nobody has measured in time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from edgewright_contract.compressedmodel import Constraints, Objective, Selection
from edgewright_contract.compressedmodel_status import Candidate
from edgewright_contract.quantities import seconds, size_bytes
from edgewright_contract.release import Precision, Release, Variant

MOST_MEASURED = 8
"""Variants of one benchmark request, parents included."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The variant and why, or none and the nearest miss; `measured` is what it rests on."""

    variant: str | None
    reason: str
    measured: tuple[Candidate, ...] = ()
    parent: str | None = None

    @property
    def kept(self) -> tuple[Candidate, ...]:
        """What must be remembered so that the choice stays as it is: the variant and its parent."""
        return tuple(entry for entry in self.measured if entry.variant in (self.variant, self.parent))


@dataclass(frozen=True, slots=True)
class Candidates:
    """What is worth measuring: the candidates and the FP32 parents that they are compared with."""

    names: tuple[str, ...]
    fallback: str | None
    """The FP32 variant for a class that has not measured."""
    miss: str = ""
    """Why there is no candidate."""

    @property
    def trivial(self) -> bool:
        """Whether there is nothing to choose."""
        return len(self.names) <= 1


def pinned(release: Release, selection: Selection) -> Choice | None:
    """The choice of spec.selection.variant, if it is set."""
    if selection.variant is None:
        return None
    if any(variant.name == selection.variant for variant in release.variants):
        return Choice(selection.variant, "pinned by spec.selection.variant")
    known = ", ".join(variant.name for variant in release.variants)
    return Choice(None, f"pinned variant {selection.variant} is not in the release; it has {known}"[:300])


def candidates(release: Release, selection: Selection) -> Candidates:
    """The best of the Pareto front of F1, bytes and the release's own p50 that meet what needs no measuring."""
    fitting, miss = _fitting(release.variants, lambda variant: _stated(variant, release, selection.constraints))
    if not fitting:
        return Candidates((), None, miss)
    rank = _RANK[selection.objective]
    ranked = sorted(_front(fitting), key=lambda variant: rank(variant, variant.latency.p50_microseconds))
    chosen: list[str] = []
    for variant in ranked[: selection.candidates]:
        added = [name for name in (variant.name, variant.parent) if name is not None and name not in chosen]
        if len(chosen) + len(added) <= MOST_MEASURED:
            chosen += added
    plain = [variant for variant in fitting if variant.precision is Precision.FP32]
    parent = ranked[0].parent or ranked[0].name
    plain.sort(key=lambda it: (it.name != parent, rank(it, it.latency.p50_microseconds)))
    return Candidates(tuple(chosen), plain[0].name if plain else None)


def choose(release: Release, selection: Selection, measured: Mapping[str, Candidate]) -> Choice:
    """Choose for one class from what its nodes measured; a candidate without a measurement is unfit there."""
    chosen = [variant for variant in release.variants if variant.name in measured]
    best = max((_f1(variant) for variant in release.variants), default=0.0)

    def limits(variant: Variant) -> Iterator[tuple[float, str]]:
        yield from _stated(variant, release, selection.constraints, best)
        yield from _measured(variant, measured, selection.constraints)

    fitting, miss = _fitting(chosen, limits)
    shown = tuple(sorted(measured.values(), key=lambda it: (it.p50_microseconds, it.variant)))[:MOST_MEASURED]
    if not fitting:
        return unfit(miss, shown)
    rank = _RANK[selection.objective]
    winner = min(fitting, key=lambda variant: rank(variant, measured[variant.name].p50_microseconds))
    reason = f"best by {selection.objective} of {len(fitting)} that meet the constraints, of {len(chosen)} measured"
    return Choice(winner.name, reason, shown, winner.parent)


def unfit(miss: str, shown: tuple[Candidate, ...] = ()) -> Choice:
    """No variant; `miss` is the nearest."""
    return Choice(None, f"no variant meets the constraints; the nearest is {miss}"[:300], shown)


def unmeasured(found: Candidates, why: str) -> Choice:
    """The FP32 variant, where nobody could measure."""
    if found.fallback is None:
        return Choice(None, f"{why}, and no FP32 variant meets the constraints: {found.miss}"[:300])
    return Choice(found.fallback, f"{why}: the FP32 variant runs until then")


def _fitting(
    variants: Sequence[Variant], limits: Callable[[Variant], Iterator[tuple[float, str]]]
) -> tuple[list[Variant], str]:
    """Those that miss no limit, and the nearest miss as a sentence part."""
    misses: list[tuple[float, str]] = []
    fitting: list[Variant] = []
    for variant in variants:
        missed = [limit for limit in limits(variant) if limit[0] > 0]
        if missed:
            misses.append((sum(share for share, _ in missed), f"{variant.name}: {max(missed)[1]}"))
        else:
            fitting.append(variant)
    return fitting, min(misses)[1] if misses else "none: nothing was measured"


def _stated(
    variant: Variant, release: Release, limits: Constraints, best: float | None = None
) -> Iterator[tuple[float, str]]:
    """Limits on what the release states: the share by which each is missed (at most 0: met) and what to say then."""
    if limits.max_size is not None:
        most = size_bytes(limits.max_size)
        yield _over(variant.bytes, most), f"{variant.bytes} bytes, more than maxSize {limits.max_size}"
    f1 = variant.accuracy.macro_f1 if variant.accuracy else None
    if limits.min_macro_f1 is not None:
        missed = inf if f1 is None else limits.min_macro_f1 - f1
        yield missed, f"macro-F1 {f1}, less than minMacroF1 {limits.min_macro_f1}"
    if limits.max_macro_f1_drop is not None:
        top = max((_f1(one) for one in release.variants), default=0.0) if best is None else best
        missed = inf if f1 is None else top - f1 - limits.max_macro_f1_drop
        yield missed, f"macro-F1 {f1}, more than maxMacroF1Drop {limits.max_macro_f1_drop} below {top}"


def _measured(variant: Variant, measured: Mapping[str, Candidate], limits: Constraints) -> Iterator[tuple[float, str]]:
    """Limits on what the class measured."""
    mine = measured[variant.name]
    if variant.parent is not None:
        parent = measured.get(variant.parent)
        slower = _over(mine.p50_microseconds, parent.p50_microseconds) if parent else inf
        yield slower, "slower than its FP32 parent" if parent else "its FP32 parent was not measured"
    if limits.max_p95 is not None:
        over = _over(mine.p95_microseconds, seconds(limits.max_p95) * 1e6)
        yield over, f"p95 {mine.p95_microseconds} us, more than maxP95 {limits.max_p95}"


def _front(variants: Sequence[Variant]) -> list[Variant]:
    """Those that no other beats in all of F1, bytes and p50."""

    def beaten(one: Variant) -> bool:
        mine = _costs(one)
        return any(
            other is not one and _costs(other) != mine and all(a <= b for a, b in zip(_costs(other), mine, strict=True))
            for other in variants
        )

    return [variant for variant in variants if not beaten(variant)]


def _costs(variant: Variant) -> tuple[float, float, float]:
    return -_f1(variant), float(variant.bytes), variant.latency.p50_microseconds


def _over(value: float, most: float) -> float:
    return value / most - 1 if most else inf


def _f1(variant: Variant) -> float:
    return variant.accuracy.macro_f1 if variant.accuracy else 0.0


_RANK: dict[Objective, Callable[[Variant, float], tuple[float, float, str]]] = {
    Objective.LATENCY: lambda variant, p50: (p50, variant.bytes, variant.name),
    Objective.SIZE: lambda variant, p50: (variant.bytes, p50, variant.name),
    Objective.ACCURACY: lambda variant, p50: (-_f1(variant), p50, variant.name),
}
