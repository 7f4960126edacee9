"""Inside a sweep, in a process of its own: one choice becomes one measured file."""

from functools import lru_cache
from pathlib import Path

import torch

from edgewright_pipelines import evaluate, flow, latency
from edgewright_pipelines.choices import Choice, Outcome, Task
from edgewright_pipelines.compress import Compressor, Kept, Made
from edgewright_pipelines.data import source
from edgewright_pipelines.recipe import Recipe
from edgewright_pipelines.stages import Stages


def run(task: Task) -> Outcome:
    """Make and measure one choice. The base and every finished step come from the workspace's stages.

    Raises:
        PruningError, QuantizationError, TrainingError: the choice cannot be made.
        OSError: the workspace cannot be written.
    """
    compressor, base = _opened(task.recipe, task.data, task.workspace)
    return measured(made(compressor, base, task.choice)[-1], compressor)


def made(compressor: Compressor, base: Kept, choice: Choice) -> tuple[Made, ...]:
    """The files of a choice: the FP32 one and, if it is rounded, the INT8 one behind it."""
    kept = compressor.pruned(base, choice.pruning)
    parent = compressor.fp32(kept)
    return (parent,) if choice.way is None else (parent, compressor.int8(kept, parent, base, choice.way))


def measured(file: Made, compressor: Compressor) -> Outcome:
    """Score on the validation side only; the test side is read once, for what the search kept."""
    validation = compressor.validation
    scores = compressor.task.score(file.onnx, validation)
    taken = latency.measure({file.name: file.onnx}, evaluate.example(validation))[file.name]
    return Outcome(scores.macro_f1, len(file.onnx), taken.p50, scores.bce)


@lru_cache(maxsize=1)
def _opened(recipe: str, data: Path | None, workspace: Path) -> tuple[Compressor, Kept]:
    """Once for each process: reading and cutting the days takes longer than a trial of a small network."""
    torch.set_num_threads(1)
    found, _ = source.obtain(data, workspace)
    line = flow.opened(Recipe.model_validate_json(recipe), found, Stages(workspace / "stages"), lambda *_: None)
    return line.compressor(), line.base()
