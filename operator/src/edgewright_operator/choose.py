"""Which variant a hardware class runs: by objective and constraints, never one slower than its FP32 parent. Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf

from edgewright_contract.compressedmodel import Constraints, Objective, Selection
from edgewright_contract.quantities import seconds, size_bytes
from edgewright_contract.release import Release, Variant


@dataclass(frozen=True, slots=True)
class Choice:
    """The variant and why, or none and the nearest miss."""

    variant: Variant | None
    reason: str
    candidates: tuple[str, ...] = ()


def choose(release: Release, selection: Selection) -> Choice:
    """Choose from the release's own measurements (those of a node's class come with the choice by measurement)."""
    if selection.variant is not None:
        try:
            return Choice(release.variant(selection.variant), "pinned by spec.selection.variant")
        except KeyError:
            known = ", ".join(variant.name for variant in release.variants)
            return Choice(None, f"pinned variant {selection.variant} is not in the release; it has {known}")
    best_f1 = max((variant.accuracy.macro_f1 for variant in release.variants if variant.accuracy), default=0.0)
    misses: list[tuple[float, str]] = []
    fitting: list[Variant] = []
    for variant in release.variants:
        miss = _miss(variant, release, selection.constraints, best_f1)
        if miss is None:
            fitting.append(variant)
        else:
            misses.append((miss[0], f"{variant.name}: {miss[1]}"))
    if not fitting:
        return Choice(None, f"no variant meets the constraints; the nearest is {min(misses)[1]}")
    ranked = sorted(fitting, key=_RANK[selection.objective])
    best = ranked[0]
    reason = f"best by {selection.objective} of {len(fitting)} that meet the constraints, as measured in the release"
    return Choice(best, reason, tuple(variant.name for variant in ranked[: selection.candidates]))


def _miss(variant: Variant, release: Release, limits: Constraints, best_f1: float) -> tuple[float, str] | None:
    """How far the variant misses, relative to the limits and summed, and its worst miss as a sentence part."""
    misses = [miss for miss in _limits(variant, release, limits, best_f1) if miss[0] > 0]
    return (sum(share for share, _ in misses), max(misses)[1]) if misses else None


def _limits(
    variant: Variant, release: Release, limits: Constraints, best_f1: float
) -> Iterator[tuple[float, str]]:
    """Each limit: the share by which it is missed (at most 0: met) and what to say then."""
    if variant.parent is not None:
        p50, parent = variant.latency.p50_microseconds, release.variant(variant.parent).latency.p50_microseconds
        yield p50 / parent - 1, "slower than its FP32 parent"
    if limits.max_size is not None:
        most = size_bytes(limits.max_size)
        yield _over(variant.bytes, most), f"{variant.bytes} bytes, more than maxSize {limits.max_size}"
    if limits.max_p95 is not None:
        p95 = variant.latency.p95_microseconds
        yield _over(p95, seconds(limits.max_p95) * 1e6), f"p95 {p95:.0f} us, more than maxP95 {limits.max_p95}"
    f1 = variant.accuracy.macro_f1 if variant.accuracy else None
    if limits.min_macro_f1 is not None:
        missed = inf if f1 is None else limits.min_macro_f1 - f1
        yield missed, f"macro-F1 {f1}, less than minMacroF1 {limits.min_macro_f1}"
    if limits.max_macro_f1_drop is not None:
        missed = inf if f1 is None else best_f1 - f1 - limits.max_macro_f1_drop
        yield missed, f"macro-F1 {f1}, more than maxMacroF1Drop {limits.max_macro_f1_drop} below {best_f1}"


def _over(value: float, most: float) -> float:
    return value / most - 1 if most else inf


def _f1(variant: Variant) -> float:
    return variant.accuracy.macro_f1 if variant.accuracy else 0.0


_RANK: dict[Objective, Callable[[Variant], tuple[float, float, str]]] = {
    Objective.LATENCY: lambda variant: (variant.latency.p50_microseconds, variant.bytes, variant.name),
    Objective.SIZE: lambda variant: (variant.bytes, variant.latency.p50_microseconds, variant.name),
    Objective.ACCURACY: lambda variant: (-_f1(variant), variant.latency.p50_microseconds, variant.name),
}
