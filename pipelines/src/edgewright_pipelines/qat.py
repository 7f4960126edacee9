"""Beside `quantize.to_int8`, the other way to INT8: a short training that already rounds as the exported file will.

The network is folded first (no batch norms, even channels), so what is trained is exactly what is exported.
Importing this takes seconds (torchao), so `compress` does it only where a recipe asks for it.
"""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx, nn

from edgewright_pipelines import export, narrow, quantize, rounding
from edgewright_pipelines.fold import fold
from edgewright_pipelines.networks import Classifier
from edgewright_pipelines.pt2e import convert_pt2e, disable_observer, move_exported_model_to_eval, prepare_qat_pt2e
from edgewright_pipelines.sampling import Draws
from edgewright_pipelines.tasks import Identify, Task
from edgewright_pipelines.train import Report, Schedule, TrainingError, silent

WARMUP_FRACTION = 0.1
LEARNING_SHARE = 0.5  # part of the steps in which ranges still move; later they must stand as in the file
EXAMPLE_BATCH = 2
COMPARED = 256  # windows on which layers show whether they bear 4 bits


@dataclass(frozen=True, slots=True)
class Lesson:
    """One training aware of rounding: steps, windows in a step and the largest learning rate."""

    steps: int
    batch: int
    learning_rate: float
    clip: float = 5.0


@dataclass(frozen=True, slots=True)
class Aware:
    """The INT8 file and its FP32 twin, which has the same trained weights and shows what rounding alone does."""

    int8: bytes
    twin: bytes


def to_int8(
    network: Classifier,
    teacher: Classifier,
    draws: Draws,
    lesson: Lesson,
    *,
    seed: int,
    task: Task | None = None,
    scheme: quantize.Scheme | None = None,
    report: Report = silent,
    threads: int = 1,
) -> Aware:
    """Train a folded copy of `network` with rounding in every step, towards the answers of `teacher`, and export it.

    Raises:
        TrainingError: the loss stopped being a number.
        QuantizationError: nothing in the network could be rounded.
    """
    folded, does, scheme = fold(network), task or Identify(), scheme or quantize.Scheme()
    with _seeded(seed, threads), _quiet():
        windows = torch.from_numpy(draws.draw(COMPARED, np.random.default_rng(seed))[0])
        four = narrow.narrow(folded, windows) if scheme.weight_bits == narrow.BITS else ()
        prepared = _prepared(folded, draws.seconds, rounding.Rounding(scheme, four))
        _train(prepared, copy.deepcopy(teacher).eval(), draws, lesson, np.random.default_rng(seed), report, does)
        trained = {name: value.detach() for name, value in prepared.named_parameters()}
        for name, parameter in folded.named_parameters():
            parameter.data.copy_(trained[name])
        twin = export.to_onnx(folded, draws.seconds, folded=True, answering=does.answering, outputs=does.outputs)
        return Aware(_converted(prepared, draws.seconds, does), twin)


def _prepared(folded: Classifier, window: int, how: rounding.Rounding) -> fx.GraphModule:
    example = (torch.zeros(EXAMPLE_BATCH, 1, window),)
    shapes = ({0: torch.export.Dim("batch", min=1, max=65_536)},)
    graph = torch.export.export(folded, example, dynamic_shapes=shapes).module()
    assert isinstance(graph, fx.GraphModule)  # noqa: S101 (for the type checker)
    prepared: fx.GraphModule = prepare_qat_pt2e(graph, how)
    if not any("post_process" in name for name, _ in prepared.named_modules()):
        raise quantize.QuantizationError("No convolution or linear layer was found, so nothing became INT8.")
    return prepared


def _train(
    prepared: fx.GraphModule,
    teacher: Classifier,
    draws: Draws,
    lesson: Lesson,
    rng: np.random.Generator,
    report: Report,
    task: Task,
) -> None:
    trained = [parameter for parameter in prepared.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0, betas=(0.9, 0.99), foreach=True)
    schedule = Schedule(lesson.steps, lesson.learning_rate, WARMUP_FRACTION)
    for step in range(lesson.steps):
        if step == round(lesson.steps * LEARNING_SHARE):
            prepared.apply(disable_observer)
        watts = torch.from_numpy(draws.draw(lesson.batch, rng)[0])
        for group in optimizer.param_groups:
            group["lr"] = schedule.at(step)
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            wanted = teacher(watts)
        loss = task.distance(prepared(watts), wanted)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, lesson.clip)
        optimizer.step()
        if not torch.isfinite(loss):
            raise TrainingError(f"The loss is {float(loss)} at step {step + 1}; use a smaller qat_learning_rate.")
        report(step + 1, lesson.steps, float(loss))


def _converted(prepared: fx.GraphModule, window: int, task: Task) -> bytes:
    move_exported_model_to_eval(prepared)
    return export.traced(task.answering(convert_pt2e(prepared)), window, task.outputs)


@contextmanager
def _seeded(seed: int, threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """torch and torchao warn about their own insides, which a person who trains cannot change."""
    noisy = [logging.getLogger(name) for name in ("torch", "torchao")]
    levels = [logger.level for logger in noisy]
    for logger in noisy:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)
