"""Inside pruning: which channels stay, decided from importance alone; pure.

torch-pruning rounds the number of kept channels down, so small layers reach 0 and are then silently left whole. Here
the number is rounded to the nearest multiple, never below one multiple, and what could not be done is said.
"""

from collections.abc import Mapping

import torch

from edgewright_pipelines.recipe import Scope


def keep(
    scores: Mapping[str, torch.Tensor], ratio: float, scope: Scope, before: Mapping[str, int] | None = None
) -> dict[str, int]:
    """How many channels of each layer should stay, before rounding.

    scores: importance [channels] of each layer, comparable between layers if the scope is global; before: the channels
    of which `ratio` should be gone, where earlier rounds have taken some already.
    """
    once = {name: before[name] if before else len(score) for name, score in scores.items()}
    if scope is Scope.LOCAL:
        return {name: min(round(once[name] * (1 - ratio)), len(score)) for name, score in scores.items()}
    everything = torch.cat(list(scores.values()))
    removed = max(0, len(everything) - sum(once.values()) + round(sum(once.values()) * ratio))
    order = torch.argsort(everything, stable=True)
    gone = torch.zeros(len(everything), dtype=torch.bool)
    gone[order[:removed]] = True
    parts = torch.split(gone, [len(score) for score in scores.values()])
    return {name: int((~part).sum()) for name, part in zip(scores, parts, strict=True)}


def rounded(kept: int, before: int, round_to: int) -> int:
    """`kept` as a multiple of `round_to`: the nearest, at least one multiple and at most `before`."""
    nearest = max(round_to, int(kept / round_to + 0.5) * round_to)
    return min(nearest, before)


def weakest(score: torch.Tensor, kept: int) -> list[int]:
    """Channels to remove so that the `kept` most important stay, in ascending order."""
    order = torch.argsort(score, stable=True)
    return sorted(int(index) for index in order[: len(score) - kept])
