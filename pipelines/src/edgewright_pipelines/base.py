"""Stage `windows.cut → train.fit → prune.shrink`: the trained base network, from disk where it was trained before."""

import io
from collections.abc import Callable, Mapping
from dataclasses import astuple
from typing import Any

import torch

from edgewright_pipelines import networks, train
from edgewright_pipelines.networks import Classifier
from edgewright_pipelines.recipe import Recipe
from edgewright_pipelines.splits import Split
from edgewright_pipelines.stages import Stages
from edgewright_pipelines.tasks import Identify, Task


def trained(
    recipe: Recipe,
    split: Split,
    decided: Mapping[str, Any],
    stages: Stages,
    report: Callable[[str, float], None],
    *,
    task: Task | None = None,
) -> tuple[Classifier, tuple[train.Point, ...]]:
    """The base and how its loss fell; `decided` is all that decides it. Raises TrainingError or SamplingError."""
    does: Task = task or Identify()
    fresh = networks.build(recipe.network, recipe.window.seconds, does.width(len(split.classes)), seed=recipe.seed)

    def told(step: int, steps: int, loss: float) -> None:
        report(f"training the base (loss {loss:.2f})", step / steps)

    def make() -> bytes:
        done = does.fit(fresh, split, recipe, seed=recipe.seed, report=told)
        buffer = io.BytesIO()
        curve = torch.tensor([astuple(point) for point in done.history], dtype=torch.float64)
        torch.save({"weights": done.network.state_dict(), "history": curve}, buffer)
        return buffer.getvalue()

    stored = torch.load(io.BytesIO(stages.keep("base", decided, make)), weights_only=True)
    fresh.load_state_dict(stored["weights"])
    history = tuple(train.Point(int(step), *rest) for step, *rest in stored["history"].tolist())
    return fresh.eval(), history
