"""Stage `train.fit → rounds.pruned → export.to_onnx`: channels and ramps leave in rounds, each with fine-tuning."""

from collections.abc import Callable

from edgewright_pipelines import prune
from edgewright_pipelines.networks import Classifier
from edgewright_pipelines.prune import Calibration, Shrunk
from edgewright_pipelines.recipe import Pruning, Recipe
from edgewright_pipelines.splits import Split
from edgewright_pipelines.tasks import Task

Report = Callable[[int, int, float], None]

LAST_SHARE = 0.5
"""Of all steps of fine-tuning: those of the last round; the earlier rounds share the rest."""


def pruned(
    base: Classifier, point: Pruning, calibration: Calibration, split: Split, recipe: Recipe, task: Task, report: Report
) -> Shrunk:
    """The base pruned to `point` and fine-tuned towards the labels and the base's answers, and the audit of it.

    What stays falls by the same factor in each round.
    Raises PruningError, TrainingError or SamplingError.
    """
    network, audit, done = base, None, 0
    every = steps(recipe.compression.finetune_steps if point.finetune_steps is None else point.finetune_steps, point)
    for number, count in enumerate(every, start=1):
        step = point.model_copy(
            update={"ratio": _gone(point.ratio, number / len(every)), "ramps": _gone(point.ramps, number / len(every))}
        )
        shrunk = prune.shrink(
            network,
            step,
            calibration,
            round_to=recipe.compression.round_to,
            seed=recipe.seed,
            loss=task.loss,
            since=audit,
        )
        compression = recipe.compression.model_copy(update={"finetune_steps": count})
        lesson = recipe.model_copy(update={"compression": compression})
        tuned = task.finetune(
            shrunk.network, base, split, lesson, seed=recipe.seed, report=_of(report, done, sum(every))
        )
        network, audit, done = tuned.network, shrunk.audit, done + count
    assert audit is not None  # noqa: S101 (for the type checker)
    return Shrunk(network, audit)


def steps(total: int, point: Pruning) -> tuple[int, ...]:
    """Steps of fine-tuning after each round."""
    earlier = round(total * (1 - LAST_SHARE) / max(1, point.rounds - 1))
    return (*([earlier] * (point.rounds - 1)), total - earlier * (point.rounds - 1))


def _gone(ratio: float, part: float) -> float:
    """Part that is gone after `part` of the rounds."""
    return ratio if part == 1 else 1 - (1 - ratio) ** part


def _of(report: Report, done: int, total: int) -> Report:
    return lambda step, _, loss: report(done + step, total, loss)
