"""Four verdicts, one vote for each node, and error rates as stated."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from edgewright_contract.compressedmodel import Gates
from edgewright_contract.compressedmodel_status import Verdict
from edgewright_contract.edgenode import AssignedModel, ModelState
from edgewright_operator import evidence, gates
from edgewright_operator.baselines import Baseline
from edgewright_operator.facts import NodeFacts, PrometheusAnswer

PASS, FAIL, WAIT, ERROR = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ERROR
RULES = Gates(min_samples=100)


@pytest.fixture(scope="module")
def serving(stage: SimpleNamespace) -> Any:
    """Nodes that serve release 2 after release 1, with these figures; none: they report none."""

    def made(*told: Any, classes: tuple[str, ...] = ("a",)) -> list[NodeFacts]:
        play = stage.Play(stage.model(selection={"variant": "base-fp32"}), stage.fleet(len(told), classes=classes))
        nodes = []
        for node, figures in zip(play.nodes, told, strict=True):
            for version in (1, 2):
                found = stage.release(version)
                live = {"version": version, "sequence": version, "manifest": found.manifest, "variant": "base-fp32"}
                entry = {"name": stage.KEY, "registeredModel": "nilm-identify", "live": live}
                node = replace(node, assigned=AssignedModel.model_validate(entry))
                node = stage.answered(node, ModelState.LIVE)
            assert node.status is not None
            nodes.append(replace(node, status=node.status.model_copy(update={"figures": figures})))
        return nodes

    return made


@pytest.fixture(scope="module")
def judged(stage: SimpleNamespace) -> Any:
    def judge(nodes: list[NodeFacts], rules: Gates = RULES, population: int = 1000, **how: Any) -> gates.Judgment:
        before = how.get("before", {"a": Baseline(10_000.0, 60_000_000.0), "b": Baseline(10_000.0, 60_000_000.0)})
        return gates.judge(nodes, rules, stage.release(2).manifest, before, how.get("prometheus", {}), population)

    return judge


def verdicts(found: gates.Judgment) -> dict[str, Verdict]:
    return {check.name: check.verdict for check in found.gate.checks}


def test_healthy_nodes_pass_every_check(stage: Any, serving: Any, judged: Any) -> None:
    found = judged(serving(*[stage.figures()] * 3))
    assert found.gate.verdict is PASS
    assert set(verdicts(found)) == {"nodes", "errorRate", "p95Ratio", "agreement", "rssRatio"}
    assert found.against == ()


@pytest.mark.parametrize(
    "told",
    [
        None,
        {"samples": 0, "effective_samples": 0, "replayed": 0, "agreement": None},
        {"effective_samples": 30},
        {"agreement": None},
    ],
    ids=["no figures", "no history", "few samples", "never compared"],
)
def test_no_data_waits(stage: Any, serving: Any, judged: Any, told: dict[str, Any] | None) -> None:
    found = judged(serving(*[told if told is None else stage.figures(**told)] * 3))
    assert found.gate.verdict is WAIT
    assert found.message


def test_nobody_exposed_waits(judged: Any) -> None:
    assert judged([]).gate.verdict is WAIT


@pytest.mark.parametrize(
    ("told", "check"),
    [
        ({"errors": 120}, "errorRate"),
        ({"p95_microseconds": 30_000}, "p95Ratio"),
        ({"agreement": 0.2}, "agreement"),
        ({"rss_bytes": 250_000_000}, "rssRatio"),
        ({"unknown_ratio": 0.9}, "unknownRatio"),
        ({"drift": 5.0}, "drift"),
    ],
)
def test_two_bad_nodes_fail_and_say_why(stage: Any, serving: Any, judged: Any, told: Any, check: str) -> None:
    rules = RULES.model_copy(update={"max_unknown_ratio": 0.3, "max_drift": 0.5})
    found = judged(serving(*[stage.figures(**told)] * 2), rules)
    assert found.gate.verdict is FAIL
    assert {one.reason for one in found.against} == {check}
    assert check in found.message


@pytest.mark.parametrize(("limits", "told"), [
    ({"max_drift": 0.25}, {"drift": None}),
    ({"max_unknown_ratio": 0.3}, {"unknown_ratio": None}),
])  # fmt: skip
def test_a_release_without_a_reference_waits_where_a_gate_asks_for_it(
    stage: Any, serving: Any, judged: Any, limits: dict[str, float], told: dict[str, Any]
) -> None:
    nodes = serving(*[stage.figures(**told)] * 3)
    assert judged(nodes).gate.verdict is PASS
    found = judged(nodes, RULES.model_copy(update=limits))
    assert found.gate.verdict is WAIT
    assert "from 0 of 3 nodes" in found.message


@pytest.mark.parametrize(
    "told", [{"errors": 400}, {"p95_microseconds": 900_000}, {"agreement": 0.0}, {"rss_bytes": 10**10}]
)
def test_one_node_alone_fails_nobody_and_is_named(stage: Any, serving: Any, judged: Any, told: Any) -> None:
    good = [stage.figures()] * 4
    found = judged(serving(stage.figures(**told), *good))
    assert found.gate.verdict is PASS
    assert [one.name for one in found.against] == ["n0"]
    alone = judged(serving(stage.figures(**told)))
    assert alone.gate.verdict is WAIT
    assert "another node is asked" in alone.message
    assert judged(serving(stage.figures(**told)), population=1).gate.verdict is FAIL  # nobody else could be asked


def test_one_loud_node_passes_nobody(stage: Any, serving: Any, judged: Any) -> None:
    loud = stage.figures(samples=10**6, effective_samples=10**6, replayed=10**6)
    silent = stage.figures(samples=0, effective_samples=0, replayed=0, agreement=None)
    assert judged(serving(loud, silent, silent)).gate.verdict is WAIT
    assert judged(serving(loud, silent)).gate.verdict is WAIT
    assert judged(serving(loud)).gate.verdict is PASS  # nobody else is exposed


def test_a_majority_must_give_its_share() -> None:
    assert gates.counted([1000], 1, 100) == 100
    assert gates.counted([1000, 0], 2, 100) == 50
    assert gates.counted([1000, 1000, 0], 3, 100) == 100
    assert gates.counted([1000, 1000] + [0] * 8, 10, 100) < 100


def test_a_value_over_its_limit_that_may_be_chance_waits(stage: Any, serving: Any, judged: Any) -> None:
    found = judged(serving(*[stage.figures(samples=60, effective_samples=60, errors=1)] * 3))
    assert verdicts(found)["errorRate"] is WAIT
    assert "chance" in found.message


def test_many_slightly_bad_nodes_fail_together_though_none_is_against_alone(
    stage: Any, serving: Any, judged: Any
) -> None:
    few = stage.figures(samples=30, effective_samples=30, errors=2)
    found = judged(serving(*[few] * 12))
    assert found.against == ()
    assert verdicts(found)["errorRate"] is FAIL


def test_one_class_that_is_bad_fails_among_many_good_ones(stage: Any, serving: Any, judged: Any) -> None:
    told = [stage.figures(agreement=0.3) if index % 10 == 0 else stage.figures() for index in range(40)]
    classes = tuple("b" if index % 10 == 0 else "a" for index in range(10))
    assert judged(serving(*told, classes=classes)).gate.verdict is FAIL


@pytest.mark.parametrize("answered", [2, 3])
def test_two_vetoes_fail_at_once_without_samples(stage: Any, serving: Any, judged: Any, answered: int) -> None:
    nodes = serving(*[None] * answered)
    for index in (0, 1):
        nodes[index] = stage.answered(nodes[index], ModelState.REVERTED, "CrashLoop")
    found = judged(nodes)
    assert found.gate.verdict is FAIL
    assert [one.reason for one in found.against] == ["CrashLoop"] * 2


def test_figures_about_another_release_are_no_data(stage: Any, serving: Any, judged: Any) -> None:
    old = stage.figures(manifest=stage.release(1).manifest)
    assert judged(serving(old, old)).gate.verdict is WAIT


def test_what_a_node_measured_before_counts_more_than_its_class(stage: Any, serving: Any, judged: Any) -> None:
    slow = {"p95_microseconds": 90_000}  # this machine always was nine times slower
    assert judged(serving(*[stage.figures(previous_p95_microseconds=90_000, **slow)] * 2)).gate.verdict is PASS
    assert judged(serving(*[stage.figures(**slow)] * 2)).gate.verdict is FAIL


@pytest.mark.parametrize(
    ("before", "now", "floor", "verdict"),
    [(70, 700, "1ms", PASS), (70, 3000, "1ms", FAIL), (70, 3000, "5ms", PASS), (70, 700, "0ms", FAIL)],
)
def test_a_ratio_below_the_floor_is_noise(
    stage: Any, serving: Any, judged: Any, before: int, now: int, floor: str, verdict: Verdict
) -> None:
    told = stage.figures(p95_microseconds=now, previous_p95_microseconds=before)
    found = judged(serving(told, told), RULES.model_copy(update={"p95_floor": floor}))
    assert verdicts(found)["p95Ratio"] is verdict


def test_a_node_that_has_nothing_to_compare_with_is_not_waited_for(stage: Any, serving: Any, judged: Any) -> None:
    """The first node of a class that never ran a model, beside one that is compared."""
    nodes = serving(stage.figures(), stage.figures(agreement=None), classes=("a", "new"))
    assert nodes[1].status is not None
    nodes[1] = replace(nodes[1], status=nodes[1].status.model_copy(update={"previous": None}))
    found = judged(nodes, before={"a": Baseline(10_000.0, 60_000_000.0)})
    assert found.gate.verdict is PASS
    assert {check.name: check.samples for check in found.gate.checks}["agreement"] == 50


def test_without_anything_before_there_is_no_comparison(stage: Any, serving: Any, judged: Any) -> None:
    nodes = serving(*[stage.figures(agreement=None)] * 2)
    nodes = [replace(node, status=node.status.model_copy(update={"previous": None})) for node in nodes]
    found = judged(nodes, before={})
    assert set(verdicts(found)) == {"nodes", "errorRate"}
    assert found.gate.verdict is PASS


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (PrometheusAnswer(0.01), PASS),
        (PrometheusAnswer(0.03), FAIL),
        (PrometheusAnswer(None, "Prometheus cannot be reached"), ERROR),
        (PrometheusAnswer(None), WAIT),
        (PrometheusAnswer(math.nan), ERROR),
        (PrometheusAnswer(math.inf), ERROR),
        (None, WAIT),
    ],
)
def test_prometheus(stage: Any, serving: Any, judged: Any, answer: PrometheusAnswer | None, verdict: Verdict) -> None:
    rules = Gates.model_validate({"minSamples": 100, "prometheus": [{"name": "e", "query": "up", "max": 0.02}]})
    answers = {} if answer is None else {"e": answer}
    assert judged(serving(*[stage.figures()] * 2), rules, prometheus=answers).gate.verdict is verdict


def test_a_check_that_is_switched_off_is_not_made(stage: Any, serving: Any, judged: Any) -> None:
    rules = RULES.model_copy(update={"min_agreement": 0.0})
    assert "agreement" not in verdicts(judged(serving(*[stage.figures(agreement=None)] * 2), rules))


# The stated error rates, by simulation.


def test_watching_a_rate_at_its_limit_for_ever_raises_few_false_alarms() -> None:
    """Ville: at most one in ten at this height, with a look after every window."""
    rng, alarms, runs = random.Random(1), 0, 1500
    for _ in range(runs):
        bad = 0
        for total in range(1, 301):
            bad += rng.random() < 0.01
            if bad and evidence.rate_above(bad, total, 0.01) >= -math.log(0.1):
                alarms += 1
                break
    assert alarms / runs <= 0.1
    assert alarms  # a test that could not ring is no test


def test_a_rate_well_over_its_limit_is_found() -> None:
    rng = random.Random(2)
    found = [evidence.rate_above(sum(rng.random() < 0.08 for _ in range(400)), 400, 0.01) for _ in range(300)]
    assert sum(value >= -math.log(0.001) for value in found) >= 295


def test_broken_nodes_in_their_usual_number_fail_nobody_and_more_do() -> None:
    def failed(share: float, rng: random.Random) -> bool:
        against = 0
        for answered in range(1, 501):
            against += rng.random() < share
            if against and gates.crowd(against, answered):
                return True
        return False

    rng = random.Random(3)
    assert sum(failed(gates.BROKEN, rng) for _ in range(2000)) <= 4  # 0.05 % is stated
    assert sum(failed(0.2, rng) for _ in range(200)) == 200


def test_healthy_waves_are_never_failed_and_bad_ones_are_not_passed(
    stage: SimpleNamespace, serving: Any, judged: Any
) -> None:
    """Ten nodes, ten looks, figures that scatter: 0 of 300 healthy waves fail, 0 of 100 bad ones pass."""
    rng = random.Random(4)
    nodes = serving(*[stage.figures()] * 10)

    def told(node: NodeFacts, looks: int, quality: float, speed: float) -> NodeFacts:
        number = 40 * looks
        same = sum(rng.random() < quality for _ in range(number)) / number
        p95 = round(10_000 * speed * math.exp(rng.gauss(0, 0.1)))
        figures = stage.figures(
            samples=number, effective_samples=number, replayed=0, agreement=same, p95_microseconds=p95
        )
        assert node.status is not None
        return replace(node, status=node.status.model_copy(update={"figures": figures}))

    def looks(quality: float, speed: float) -> set[Verdict]:
        return {judged([told(node, look, quality, speed) for node in nodes]).gate.verdict for look in (1, 2, 3)}

    assert not any(FAIL in looks(0.98, 1.0) for _ in range(300))
    assert all(looks(0.7, 1.0) == {FAIL} for _ in range(50))
    assert all(looks(0.98, 2.0) == {FAIL} for _ in range(50))
