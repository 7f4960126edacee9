"""Which variant a hardware class runs: by objective and constraints, never one slower than its FP32 parent. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

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
    misses: dict[str, str] = {}
    fitting: list[Variant] = []
    for variant in release.variants:
        miss = _miss(variant, release, selection.constraints, best_f1)
        if miss is None:
            fitting.append(variant)
        else:
            misses[variant.name] = miss
    if not fitting:
        nearest = next(iter(misses.items()))
        return Choice(None, f"no variant meets the constraints; {nearest[0]}: {nearest[1]}")
    ranked = sorted(fitting, key=_RANK[selection.objective])
    best = ranked[0]
    reason = f"best by {selection.objective} of {len(fitting)} that meet the constraints, as measured in the release"
    return Choice(best, reason, tuple(variant.name for variant in ranked[: selection.candidates]))


def _miss(variant: Variant, release: Release, limits: Constraints, best_f1: float) -> str | None:
    """The first constraint that the variant misses, as a sentence part."""
    if variant.parent is not None:
        parent = release.variant(variant.parent)
        if variant.latency.p50_microseconds > parent.latency.p50_microseconds:
            return "slower than its FP32 parent"
    if limits.max_size is not None and variant.bytes > size_bytes(limits.max_size):
        return f"{variant.bytes} bytes, more than maxSize {limits.max_size}"
    if limits.max_p95 is not None and variant.latency.p95_microseconds > seconds(limits.max_p95) * 1e6:
        return f"p95 {variant.latency.p95_microseconds:.0f} us, more than maxP95 {limits.max_p95}"
    f1 = variant.accuracy.macro_f1 if variant.accuracy else None
    if limits.min_macro_f1 is not None and (f1 is None or f1 < limits.min_macro_f1):
        return f"macro-F1 {f1}, less than minMacroF1 {limits.min_macro_f1}"
    if limits.max_macro_f1_drop is not None and (f1 is None or best_f1 - f1 > limits.max_macro_f1_drop):
        return f"macro-F1 {f1}, more than maxMacroF1Drop {limits.max_macro_f1_drop} below {best_f1}"
    return None


def _f1(variant: Variant) -> float:
    return variant.accuracy.macro_f1 if variant.accuracy else 0.0


_RANK: dict[Objective, Callable[[Variant], tuple[float, float, str]]] = {
    Objective.LATENCY: lambda variant: (variant.latency.p50_microseconds, variant.bytes, variant.name),
    Objective.SIZE: lambda variant: (variant.bytes, variant.latency.p50_microseconds, variant.name),
    Objective.ACCURACY: lambda variant: (-_f1(variant), variant.latency.p50_microseconds, variant.name),
}
