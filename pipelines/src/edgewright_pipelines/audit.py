"""Between measuring and the release: which variants may be released, decided from facts alone; pure.

F1 alone hides a layer that was never pruned, a file that answers otherwise than its network, kilowatt-hours given to
the wrong appliance, and an INT8 file that is slower than what it replaces.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from edgewright_pipelines.evaluate import Measured
from edgewright_pipelines.prune import Audit as PruningAudit
from edgewright_pipelines.prune import LayerAudit
from edgewright_pipelines.recipe import Audit as Limits

# A class that took less of all energy is judged as if it took so much: one window of 4,096 s on the other side of an
# answer moves a strong appliance by half a kilowatt-hour (of 36 on Tracebase's test days).
LEAST_SHARE = 0.02


class Check(StrEnum):
    """What a variant can fail."""

    LAYERS = "layers"
    PARITY = "parity"
    ROUNDING = "rounding"
    SPEED = "speed"
    ENERGY = "energy"
    PARENT = "parent"


@dataclass(frozen=True, slots=True)
class Facts:
    """How a file came about.

    pruning: channels asked for and left, None for the whole network; parity: largest difference of a probability
    between torch and the FP32 file; noise: decibels of each rounded layer's output; in_float: layers that an INT8 file
    did not round.
    """

    parity: float
    pruning: PruningAudit | None = None
    noise: Mapping[str, float] = field(default_factory=dict)
    in_float: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For a stage's file and for reports."""
        pruning = None if self.pruning is None else asdict(self.pruning)
        return {"parity": self.parity, "pruning": pruning, "noise": dict(self.noise), "in_float": list(self.in_float)}


def remembered(found: Mapping[str, Any]) -> Facts:
    """Facts from what `as_json` and JSON made of them."""
    pruning = found["pruning"]
    if pruning is not None:
        layers = tuple(LayerAudit(**layer) for layer in pruning["layers"])
        pruning = PruningAudit(**{**pruning, "layers": layers})
    return Facts(found["parity"], pruning, dict(found["noise"]), tuple(found["in_float"]))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A measured file that wants to be released; `parent` is the FP32 file that an INT8 one replaces."""

    name: str
    parent: str | None
    facts: Facts
    measured: Measured


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason against a release."""

    check: Check
    sentence: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Released if nothing was found."""

    findings: tuple[Finding, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the variant may be released."""
        return not self.findings

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences."""
        return tuple(finding.sentence for finding in self.findings)


def judge(candidates: Sequence[Candidate], base: str, limits: Limits, *, scored: bool) -> dict[str, Verdict]:
    """The verdict on each candidate; `base` names the whole FP32 network, which the energy is compared with.

    scored: whether the data was measured; the energy of made-up days is not judged.
    """
    by_name = {candidate.name: candidate for candidate in candidates}
    verdicts: dict[str, Verdict] = {}
    for candidate in sorted(candidates, key=lambda each: each.parent is not None):  # parents first
        findings = [*_layers(candidate), *_parity(candidate, limits), *_rounding(candidate, limits)]
        if candidate.parent is not None:
            findings += _speed(candidate, by_name[candidate.parent])
            if not verdicts[candidate.parent].passed:
                findings.append(Finding(Check.PARENT, f"Its FP32 parent {candidate.parent} is not released."))
        if scored and candidate.name != base:
            findings += _energy(candidate, by_name[base], limits)
        verdicts[candidate.name] = Verdict(tuple(findings))
    return {candidate.name: verdicts[candidate.name] for candidate in candidates}


def _layers(candidate: Candidate) -> list[Finding]:
    pruning = candidate.facts.pruning
    return [] if pruning is None else [Finding(Check.LAYERS, sentence) for sentence in pruning.errors]


def _parity(candidate: Candidate, limits: Limits) -> list[Finding]:
    worst = candidate.facts.parity
    if worst <= limits.parity:
        return []
    told = f"The file differs from the network by up to {worst:.1e} of a probability, more than {limits.parity:.0e}."
    return [Finding(Check.PARITY, told)]


def _rounding(candidate: Candidate, limits: Limits) -> list[Finding]:
    found = [
        Finding(Check.ROUNDING, f"Layer {name} was not rounded to INT8 and stayed in float.")
        for name in candidate.facts.in_float
    ]
    for name, decibels in candidate.facts.noise.items():
        if not decibels >= limits.layer_decibels:
            told = f"Rounding leaves layer {name} {decibels:.1f} dB of signal, less than {limits.layer_decibels:g} dB."
            found.append(Finding(Check.ROUNDING, told))
    return found


def _speed(candidate: Candidate, parent: Candidate) -> list[Finding]:
    mine, theirs = candidate.measured.latency.p50, parent.measured.latency.p50
    if mine <= theirs:
        return []
    told = f"It takes {mine:.1f} us where its FP32 parent {parent.name} takes {theirs:.1f} us on this machine."
    return [Finding(Check.SPEED, told)]


def _energy(candidate: Candidate, base: Candidate, limits: Limits) -> list[Finding]:
    mine, theirs = candidate.measured.scores, base.measured.scores
    total = sum(theirs.energy_kwh.values())
    if not total:
        return []
    found = []
    growth = (_wrong(mine.energy_error_kwh) - _wrong(theirs.energy_error_kwh)) / total
    if growth > limits.energy_growth:
        told = (
            f"The energy error grows by {growth:.1%} of all energy over the base, more than {limits.energy_growth:.0%}."
        )
        found.append(Finding(Check.ENERGY, told))
    for name, kwh in theirs.energy_kwh.items():
        error, before = mine.energy_error_kwh[name], theirs.energy_error_kwh[name]
        more = abs(error) - abs(before)
        allowed = limits.class_energy_growth * max(kwh, LEAST_SHARE * total)
        if more > allowed:
            told = (
                f"{name} took {kwh:.2f} kWh; the error grows from {before:+.2f} to {error:+.2f} kWh,"
                f" by more than the {allowed:.2f} kWh that are allowed."
            )
            found.append(Finding(Check.ENERGY, told))
    return found


def _wrong(error_kwh: Mapping[str, float]) -> float:
    return sum(abs(error) for error in error_kwh.values())


def markdown(candidates: Sequence[Candidate], verdicts: Mapping[str, Verdict]) -> list[str]:
    """The audit for the card and the run: each variant's figures, each pruned layer, and why a variant is not released.

    CPU microseconds are the proxy of the energy that a node spends on a window; joules stand where RAPL was readable.
    """
    lines = [
        "## Audit",
        "",
        "| variant | released | parity | least dB | CPU us | J | energy error | channels asked for -> left |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    lines += [_row(candidate, verdicts[candidate.name]) for candidate in candidates]
    refused = [(name, verdict) for name, verdict in verdicts.items() if not verdict.passed]
    if refused:
        lines += ["", "### Not released", ""]
        lines += [f"* **{name}**: {' '.join(verdict.reasons)}" for name, verdict in refused]
    return [*lines, ""]


def _row(candidate: Candidate, verdict: Verdict) -> str:
    facts, latency = candidate.facts, candidate.measured.latency
    scores = candidate.measured.scores
    total = sum(scores.energy_kwh.values())
    pruning = facts.pruning.layers if facts.pruning else ()
    cells = (
        candidate.name,
        "yes" if verdict.passed else "no",
        f"{facts.parity:.1e}",
        f"{min(facts.noise.values()):.1f}" if facts.noise else "-",
        "-" if latency.cpu is None else f"{latency.cpu:.0f}",
        "-" if latency.joules is None else f"{latency.joules:.2g}",
        f"{_wrong(scores.energy_error_kwh) / total:.1%}" if total else "-",
        ", ".join(f"{layer.layer} {layer.before}: {layer.requested} -> {layer.achieved}" for layer in pruning) or "-",
    )
    return f"| {' | '.join(cells)} |"
