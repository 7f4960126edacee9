"""The gate between two waves: four verdicts from what the exposed nodes measured. Pure.

Each node has one vote, however loud it is: capped evidence of all, and a count of nodes that are against. One node
alone neither fails nor passes what others serve too; no data is Inconclusive. Error rates: docs/decisions/0014.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite, log
from statistics import median

from edgewright_contract.compressedmodel import Gates, PrometheusCheck
from edgewright_contract.compressedmodel_status import GateCheck, GateStatus, Verdict
from edgewright_operator import evidence
from edgewright_operator.baselines import Baseline
from edgewright_operator.checks import Asked, Check, Reading, asked
from edgewright_operator.facts import NodeFacts, PrometheusAnswer

FALSE_ALARM = 1e-3
"""Chance that a healthy rollout, however long it is watched, is failed by its gates."""
NODE_FALSE_ALARM = 1e-3
"""Chance that a healthy node is ever counted as against, for each check."""
BROKEN = 0.004
"""Share of nodes that are broken by themselves: so many may be against without blame for the release."""
_VOTES = -log(FALSE_ALARM / 2)
_AGAINST = -log(NODE_FALSE_ALARM)
_CAP = 2 / 3
"""One node gives at most this share of the evidence that fails a check, so that it takes two."""


@dataclass(frozen=True, slots=True)
class Against:
    """A node that speaks against the release, and why."""

    name: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Judgment:
    """The gate's status, who is against, and the sentence that says why it failed or waits."""

    gate: GateStatus
    against: tuple[Against, ...]
    message: str

    @property
    def cause(self) -> str:
        """What failed it: a check, or the reason of the first node that is against; empty where nothing did."""
        failed = next((check.name for check in self.gate.checks if check.verdict is Verdict.FAIL), "")
        return self.against[0].reason if failed == Check.NODES else failed


def judge(
    exposed: Sequence[NodeFacts],
    gates: Gates,
    manifest: str,
    before: Mapping[str, Baseline],
    prometheus: Mapping[str, PrometheusAnswer],
    population: int,
) -> Judgment:
    """Judge the release by the reachable nodes in `exposed`; `population`: how many nodes could be asked at all."""
    questions = list(asked([node for node in exposed if node.serves(manifest)], gates, manifest, before))
    against = {one.name: one for one in _opponents(exposed, manifest, questions)}
    serving = sum(node.serves(manifest) for node in exposed)
    answered = serving + sum(node.failed(manifest) for node in exposed)
    checks = [_nodes(against, answered, population)]
    checks += [_folded(one, against.keys(), serving, gates.min_samples) for one in questions]
    checks += [_prometheus(check, prometheus.get(check.name)) for check in gates.prometheus]
    verdict = _worst(check.verdict for check in checks)
    return Judgment(GateStatus(verdict=verdict, checks=checks), tuple(against.values()), _sentence(verdict, checks))


def counted(samples: Iterable[int], nodes: int, needed: int) -> int:
    """Samples that count towards `needed`: of `nodes` no node gives more than its share of a majority of them."""
    share = ceil(needed / (nodes // 2 + 1))
    return sum(min(number, share) for number in samples)


def crowd(against: int, answered: int) -> bool:
    """Whether more nodes are against than broken ones explain; a false alarm has a chance of FALSE_ALARM / 2."""
    return evidence.rate_above(against, answered, BROKEN) >= _VOTES


def _opponents(exposed: Sequence[NodeFacts], manifest: str, questions: Sequence[Asked]) -> Iterable[Against]:
    for node in exposed:
        if node.failed(manifest) and node.status is not None:
            yield Against(node.name, node.status.reason or str(node.status.state), node.status.message[:200])
    for question in questions:
        for reading in question.readings:
            if reading.against >= _AGAINST:
                stated = f"{question.check} {reading.value:.4g}, the limit is {question.limit:g}"
                yield Against(reading.node.name, question.check, f"{stated} ({reading.samples} samples)")


def _nodes(against: Mapping[str, Against], answered: int, population: int) -> GateCheck:
    number = len(against)
    first = next(iter(against.values()), None)
    if number and (number >= population or crowd(number, answered)):
        verdict = Verdict.FAIL
    elif answered > number:
        verdict = Verdict.PASS
    else:
        verdict = Verdict.INCONCLUSIVE
    said = f"{number} of {answered} nodes are against" if answered else "no exposed node has answered yet"
    named = f": {first.name} says {first.reason}: {first.message}".removesuffix(": ") if first else ""
    second = "; another node is asked" if number and verdict is Verdict.INCONCLUSIVE else ""
    share = number / answered if answered else None
    return _check(Check.NODES, share, BROKEN, answered, verdict, f"{said}{named}"[:230] + second)


def _folded(question: Asked, against: Collection[str], serving: int, needed: int) -> GateCheck:
    """One check over all nodes; where it can be asked of some only, as much less evidence is needed."""
    needed = ceil(needed * len(question.nodes) / serving) if serving else needed
    if group := _pooled_failure(question):
        value = _value(question, group, needed)
        message = f"{len(group)} nodes of class {group[0].node.hardware_class}: {_compared(question, value)}"
        return _check(question.check, value, question.limit, sum(one.samples for one in group), Verdict.FAIL, message)
    readings = [one for one in question.readings if one.node.name not in against]
    nodes = max(1, len(question.nodes.difference(against)))
    samples = counted((one.samples for one in readings), nodes, needed)
    value = _value(question, readings, needed)
    verdict, message = Verdict.PASS, ""
    if value is None or samples < needed:
        message = f"{samples} of {needed} samples from {len(readings)} of {nodes} nodes"
        verdict = Verdict.INCONCLUSIVE
    elif value < question.limit if question.at_least else value > question.limit:
        message = f"{_compared(question, value)}, which may still be chance"
        verdict = Verdict.INCONCLUSIVE
    return _check(question.check, value, question.limit, samples, verdict, message)


def _pooled_failure(question: Asked) -> list[Reading]:
    """The readings of the first class whose nodes together are beyond the limit."""
    classes: dict[str, list[Reading]] = {}
    for reading in question.readings:
        classes.setdefault(reading.node.hardware_class, []).append(reading)
    enough = -log(FALSE_ALARM / 2 / (len(Check) - 1) / max(1, len(classes)))
    for name in sorted(classes):
        if sum(min(reading.against, _CAP * enough) for reading in classes[name]) >= enough:
            return classes[name]
    return []


def _value(question: Asked, readings: Sequence[Reading], needed: int) -> float | None:
    if not readings:
        return None
    if not question.rate:
        return median(one.value for one in readings)
    share = ceil(needed / (len(readings) // 2 + 1))
    weights = [min(max(one.samples, 1), share) for one in readings]
    return sum(one.value * weight for one, weight in zip(readings, weights, strict=True)) / sum(weights)


def _compared(question: Asked, value: float | None) -> str:
    side = "at least" if question.at_least else "at most"
    return f"{question.check} is {value if value is None else format(value, '.4g')}, {side} {question.limit:g} is asked"


def _prometheus(check: PrometheusCheck, answer: PrometheusAnswer | None) -> GateCheck:
    name = f"prometheus/{check.name}"[:32]
    if answer is None or answer.value is None:
        problem = answer.problem if answer else "not asked yet"
        verdict = Verdict.ERROR if answer and problem else Verdict.INCONCLUSIVE
        return _check(name, None, check.max, 0, verdict, problem or "the query found nothing")
    if not isfinite(answer.value):
        return _check(name, None, check.max, 0, Verdict.ERROR, f"the query gave {answer.value}")
    verdict = Verdict.FAIL if answer.value > check.max else Verdict.PASS
    return _check(name, answer.value, check.max, 1, verdict, f"{answer.value:g}, at most {check.max:g} is asked")


def _check(name: str, value: float | None, limit: float, samples: int, verdict: Verdict, message: str) -> GateCheck:
    rounded = None if value is None else float(f"{value:.6g}")
    return GateCheck(name=name, value=rounded, limit=limit, samples=samples, verdict=verdict, message=message[:256])


def _worst(verdicts: Iterable[Verdict]) -> Verdict:
    found = set(verdicts)
    order = (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE)
    return next((verdict for verdict in order if verdict in found), Verdict.PASS)


def _sentence(verdict: Verdict, checks: Sequence[GateCheck]) -> str:
    return "; ".join(f"{check.name}: {check.message}" for check in checks if check.verdict is verdict and check.message)
