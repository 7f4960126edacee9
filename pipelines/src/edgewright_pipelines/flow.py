"""The straight line (a): traces → split → base network → pruned networks → ONNX → INT8 → measured variants.

`release.build` and `publish.to_mlflow` take it from here.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from edgewright_pipelines import audit, evaluate, latency, machine, sides, train
from edgewright_pipelines import base as bases
from edgewright_pipelines.compress import BASE, Compressor, Kept, Made, Report
from edgewright_pipelines.data.source import Source
from edgewright_pipelines.data.traces import Trace
from edgewright_pipelines.disaggregate import Disaggregate
from edgewright_pipelines.networks import Classifier
from edgewright_pipelines.recipe import Precision, Pruning, Recipe, TaskName
from edgewright_pipelines.splits import Split
from edgewright_pipelines.stages import Stages
from edgewright_pipelines.tasks import Identify, Task
from edgewright_pipelines.windows import WindowSet

DECIDING = ("seed", "data", "split", "window", "network", "training")
"""Tables of the recipe that decide the base."""


@dataclass(frozen=True, slots=True)
class Built:
    """One variant: its file, where it comes from, what was measured of the file, and whether it may be released."""

    name: str
    onnx: bytes
    precision: Precision
    parent: str | None
    pruning: Pruning | None
    measured: evaluate.Measured
    facts: audit.Facts
    verdict: audit.Verdict

    def candidate(self) -> audit.Candidate:
        """As the audit sees it."""
        return audit.Candidate(self.name, self.parent, self.facts, self.measured)


@dataclass(frozen=True, slots=True)
class Result:
    """All variants of one run, with the sets that a release carries samples of."""

    recipe: Recipe
    classes: tuple[str, ...]
    variants: tuple[Built, ...]
    validation: WindowSet
    test: WindowSet
    data_digest: str
    synthetic: bool
    history: tuple[train.Point, ...]


def run(recipe: Recipe, source: Source, stages: Stages, report: Report) -> Result:
    """Train, compress and measure; finished stages of an earlier run with the same inputs are reused.

    Raises:
        SplitError, WindowError, TrainingError, PruningError, QuantizationError: with a sentence.
    """
    line = opened(recipe, source, stages, report)
    return line.result(line.compressor().variants(line.base()))


def opened(recipe: Recipe, source: Source, stages: Stages, report: Report) -> "Line":
    """The line with its data read and cut, nothing trained yet.

    Raises:
        SplitError, WindowError: with a sentence.
    """
    report("reading the split", 0.0)
    cut, task = sides.of(recipe, source.traces), task_of(recipe)
    train_windows, validation, test = task.sides(cut, recipe.seed)
    return Line(recipe, source, cut.split, train_windows, validation, test, source.digest(), stages, report, task)


def task_of(recipe: Recipe) -> Task:
    """The task that the recipe names."""
    return Disaggregate() if recipe.task is TaskName.DISAGGREGATE else Identify()


def test_windows(recipe: Recipe, traces: Sequence[Trace]) -> WindowSet:
    """The held-out windows of the recipe's split: what no training has seen."""
    split = sides.split_of(recipe, traces)
    return sides.cut(recipe, split, split.test)


def test_traces(recipe: Recipe, traces: Sequence[Trace]) -> Sequence[Trace]:
    """The whole days that those windows are cut from."""
    return sides.split_of(recipe, traces).test


@dataclass(frozen=True, slots=True)
class Line:
    """One recipe on one source: trains the base and judges what the compressor makes of it."""

    recipe: Recipe
    source: Source
    split: Split
    train_windows: WindowSet
    validation: WindowSet
    test: WindowSet
    data_digest: str
    stages: Stages
    report: Report
    task: Task = field(default_factory=Identify)

    def result(self, made: Sequence[Made]) -> Result:
        """Measured on the test side and judged; the first of `made` is the whole FP32 network."""
        source = self.source
        return Result(
            self.recipe,
            self.split.classes,
            self._judged(made),
            self.validation,
            self.test,
            self.data_digest,
            source.synthetic,
            self._base()[1],
        )

    def _decided_by(self, **more: Any) -> dict[str, Any]:
        parts = self.recipe.model_dump(mode="json", include=set(DECIDING))
        if self.recipe.task is not TaskName.IDENTIFY:
            parts["task"] = self.recipe.task.value
        return {"recipe": parts, "data": self.data_digest, **more}

    def base(self) -> Kept:
        """The whole network, trained or taken from its stage."""
        return Kept(BASE, self._base()[0])

    def _base(self) -> tuple[Classifier, tuple[train.Point, ...]]:
        return bases.trained(self.recipe, self.split, self._decided_by(), self.stages, self.report, task=self.task)

    def compressor(self) -> Compressor:
        """What makes the variants of the base."""
        return Compressor(
            self.recipe,
            self.split,
            self.train_windows,
            self.validation,
            self._decided_by(),
            self.stages,
            self.report,
            self.task,
        )

    def _judged(self, made: Sequence[Made]) -> tuple[Built, ...]:
        measured = self._measured({each.name: each.onnx for each in made}, self.test)
        candidates = [audit.Candidate(each.name, each.parent, each.facts, measured[each.name]) for each in made]
        verdicts = audit.judge(candidates, made[0].name, self.recipe.audit, scored=not self.source.synthetic)
        return tuple(
            Built(
                each.name,
                each.onnx,
                each.precision,
                each.parent,
                each.point,
                measured[each.name],
                each.facts,
                verdicts[each.name],
            )
            for each in made
        )

    def _measured(self, files: dict[str, bytes], test: WindowSet) -> dict[str, evaluate.Measured]:
        """Taken once for the same files on the same machine: the table and the release tell one figure, not two."""

        def make() -> bytes:
            self.report("measuring", 0.0)
            timed = latency.measure(files, evaluate.example(test))
            found = {}
            for index, (name, onnx) in enumerate(files.items()):
                found[name] = asdict(
                    evaluate.measure(onnx, test, timed=timed[name], scores=self.task.score(onnx, test))
                )
                self.report("measuring", (index + 1) / len(files))
            return json.dumps(found).encode()

        digests = {name: hashlib.sha256(onnx).hexdigest() for name, onnx in files.items()}
        kept = self.stages.keep("measured", self._decided_by(files=digests, machine=machine.described()), make)
        return {name: evaluate.remembered(found) for name, found in json.loads(kept).items()}
