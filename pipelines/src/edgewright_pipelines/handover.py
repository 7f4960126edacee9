"""Between the flow and the release: what `flow.run` measured, in the words of the contract."""

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import numpy.typing as npt

from edgewright_contract import release as contract
from edgewright_pipelines import audit, reference, release
from edgewright_pipelines.flow import Built, Result
from edgewright_pipelines.scores import Scores
from edgewright_pipelines.windows import WindowSet


class HandoverError(ValueError):
    """The result cannot become the release that was asked for."""


def unsigned(
    result: Result, *, created: datetime, only: Sequence[str] | None = None, run_id: str | None = None
) -> release.UnsignedRelease:
    """The release of all variants that passed the audit, or of those among them that `only` names.

    The card says of the others why they are not in it.

    Raises:
        HandoverError: a name in `only` that the run did not make, or no variant passed the audit.
        ReleaseError: parts that do not fit.
    """
    recipe = result.recipe
    origin = release.Origin(
        recipe.name, recipe.digest(), result.data_digest, result.synthetic, created, run_id=run_id, task=recipe.task
    )
    window = contract.Window(seconds=recipe.window.seconds, hop_seconds=recipe.window.hop_seconds)
    return release.build(
        origin,
        window,
        result.classes,
        [_variant(built, result) for built in _chosen(result.variants, only)],
        golden_of(result.validation, recipe.release.golden_windows),
        tolerance=recipe.release.tolerance,
        audited=audit_of(result),
    )


def audit_of(result: Result) -> list[str]:
    """The audit of every variant that the run made, as Markdown."""
    verdicts = {built.name: built.verdict for built in result.variants}
    return audit.markdown([built.candidate() for built in result.variants], verdicts)


def _chosen(variants: Sequence[Built], only: Sequence[str] | None) -> list[Built]:
    made = {built.name: built for built in variants}
    if missing := [name for name in only or () if name not in made]:
        raise HandoverError(f"variant {missing[0]} was not made; there are {', '.join(made)}")
    wanted = list(variants) if only is None else [made[name] for name in only]
    passed = [built for built in wanted if built.verdict.passed]
    if not passed:
        reasons = "; ".join(f"{built.name}: {' '.join(built.verdict.reasons)}" for built in wanted)
        raise HandoverError(f"no variant passed the audit, so there is no release. {reasons}")
    return passed


def golden_of(windows: WindowSet, count: int) -> npt.NDArray[np.uint16]:
    """Windows [count, seconds] spread over the classes: one of each in turn, the one that takes most energy first."""
    energy = windows.watts.sum(axis=1, dtype=np.int64)
    queues = []
    for label in range(len(windows.classes)):
        rows = np.flatnonzero(windows.label == label)
        queues.append(list(rows[np.argsort(-energy[rows], kind="stable")]))
    picked: list[int] = []
    while len(picked) < min(count, len(windows)):
        for queue in queues:
            if queue and len(picked) < count:
                picked.append(int(queue.pop(0)))
    return np.ascontiguousarray(windows.watts[picked])


def _variant(built: Built, result: Result) -> release.BuiltVariant:
    measured, recipe = built.measured, result.recipe
    point = built.pruning
    pruning = None
    if point is not None:
        pruning = contract.Pruning(importance=point.importance, scope=point.scope, ratio=point.ratio)
    accuracy = None if result.synthetic else _accuracy(measured.scores)
    compared = None
    if recipe.task is contract.TaskName.IDENTIFY:  # where several may run at once no probability stands for the window
        compared = reference.measure(built.onnx, result.validation, recipe.release.tolerance)
    return release.BuiltVariant(
        built.name,
        built.onnx,
        built.precision,
        built.parent,
        pruning,
        release.Figures(measured.parameters, measured.macs, measured.latency.p50, measured.latency.p95, accuracy),
        compared,
    )


def _accuracy(scores: Scores) -> contract.Accuracy:
    true = sum(scores.energy_kwh.values())
    wrong = sum(abs(error) for error in scores.energy_error_kwh.values())
    return contract.Accuracy(
        macro_f1=scores.macro_f1,
        day_macro_f1=scores.macro_f1_by_day,
        accuracy=scores.accuracy,
        bce=scores.bce,
        energy_error=wrong / true if true else 0.0,
        per_class={
            name: contract.ClassScore(
                f1=f1,
                energy_kwh=scores.energy_kwh.get(name, 0.0),
                energy_error_kwh=scores.energy_error_kwh.get(name, 0.0),
            )
            for name, f1 in scores.f1_by_class.items()
        },
        disaggregation=_disaggregation(scores),
    )


def _disaggregation(scores: Scores) -> contract.Disaggregation | None:
    if scores.mae_watts is None or scores.sae is None or scores.match_rate is None:
        return None
    return contract.Disaggregation(mae_watts=scores.mae_watts, sae=scores.sae, match_rate=scores.match_rate)
