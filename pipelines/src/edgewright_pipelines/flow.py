"""The straight line (a): traces → split → base network → pruned networks → ONNX → INT8 → measured variants.

`release.build` and `publish.to_mlflow` take it from here.
"""

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from edgewright_pipelines import (
    calibrate,
    evaluate,
    export,
    latency,
    machine,
    networks,
    prune,
    quantize,
    splits,
    train,
    windows,
)
from edgewright_pipelines.data.source import Source
from edgewright_pipelines.data.traces import Trace, of_subsets
from edgewright_pipelines.networks import Classifier
from edgewright_pipelines.recipe import Precision, Pruning, Recipe, SplitBy
from edgewright_pipelines.splits import Split
from edgewright_pipelines.stages import Stages
from edgewright_pipelines.windows import WindowSet

Report = Callable[[str, float], None]
"""What runs, and which fraction of it is done."""

CALIBRATION_WINDOWS = 256
BASE = "base"


@dataclass(frozen=True, slots=True)
class Built:
    """One variant: its file, where it comes from, and what was measured of the file."""

    name: str
    onnx: bytes
    precision: Precision
    parent: str | None
    pruning: Pruning | None
    measured: evaluate.Measured


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
        SplitError, WindowError, TrainingError, PruningError, ParityError, QuantizationError: with a sentence.
    """
    report("reading the split", 0.0)
    digest = source.digest()
    split = _split(recipe, source.traces)
    cut = {name: _windows(recipe, split, side) for name, side in _sides(split).items()}
    line = _Line(recipe, split, cut["train"], cut["validation"], digest, stages, report)
    base, history = line.base()
    files = {BASE: line.exported(BASE, base)}
    for point in recipe.compression.pruning:
        files[point.name] = line.pruned(base, point)
    named = line.precisions(files)
    measured = line.measured({name: onnx for name, (onnx, _, _) in named.items()}, cut["test"])
    points = {point.name: point for point in recipe.compression.pruning}
    variants = []
    for name, (onnx, precision, origin) in named.items():
        parent = f"{origin}-{Precision.FP32}" if precision is Precision.INT8 else None
        variants.append(Built(name, onnx, precision, parent, points.get(origin), measured[name]))
    return Result(
        recipe,
        split.classes,
        tuple(variants),
        cut["validation"],
        cut["test"],
        digest,
        source.synthetic,
        history,
    )


def test_windows(recipe: Recipe, traces: Sequence[Trace]) -> WindowSet:
    """The held-out windows of the recipe's split: what no training has seen."""
    split = _split(recipe, traces)
    return _windows(recipe, split, split.test)


def test_traces(recipe: Recipe, traces: Sequence[Trace]) -> Sequence[Trace]:
    """The whole days that those windows are cut from."""
    return _split(recipe, traces).test


def _split(recipe: Recipe, traces: Sequence[Trace]) -> Split:
    chosen = of_subsets(traces, recipe.data.subsets)
    window, hop = recipe.window.seconds, recipe.window.seconds
    if recipe.split.by is SplitBy.DEVICE:
        by = recipe.split
        return splits.by_device(
            chosen, min_devices=by.min_devices, folds=by.folds, fold=by.fold, seed=recipe.seed, window=window, hop=hop
        )
    return splits.by_day(
        chosen, min_days=recipe.data.min_days, seed=recipe.seed, top=recipe.data.top_classes, window=window, hop=hop
    )


def _sides(split: Split) -> dict[str, Sequence[Trace]]:
    return {"train": split.train, "validation": split.validation, "test": split.test}


def _windows(recipe: Recipe, split: Split, side: Sequence[Trace]) -> WindowSet:
    # scored on windows that do not overlap, so that each second counts once
    return windows.cut(side, split.classes, window=recipe.window.seconds, hop=recipe.window.seconds)


@dataclass(frozen=True, slots=True)
class _Line:
    recipe: Recipe
    split: Split
    train_windows: WindowSet
    validation: WindowSet
    data_digest: str
    stages: Stages
    report: Report

    def decided_by(self, **more: Any) -> dict[str, Any]:
        parts = self.recipe.model_dump(mode="json", include={"seed", "data", "split", "window", "network", "training"})
        return {"recipe": parts, "data": self.data_digest, **more}

    def base(self) -> tuple[Classifier, tuple[train.Point, ...]]:
        recipe = self.recipe
        fresh = networks.build(recipe.network, recipe.window.seconds, len(self.split.classes), seed=recipe.seed)

        def make() -> bytes:
            trained = train.fit(fresh, self.split, recipe, seed=recipe.seed, report=self._steps("training the base"))
            buffer = io.BytesIO()
            curve = torch.tensor([astuple(point) for point in trained.history], dtype=torch.float64)
            torch.save({"weights": trained.network.state_dict(), "history": curve}, buffer)
            return buffer.getvalue()

        stored = torch.load(io.BytesIO(self.stages.keep("base", self.decided_by(), make)), weights_only=True)
        fresh.load_state_dict(stored["weights"])
        history = tuple(train.Point(int(step), *rest) for step, *rest in stored["history"].tolist())
        return fresh.eval(), history

    def pruned(self, base: Classifier, point: Pruning) -> bytes:
        compression = self.recipe.compression
        what = f"pruning {point.name}"

        def make() -> bytes:
            shrunk = prune.shrink(
                base, point, self._labelled(), round_to=compression.round_to, seed=self.recipe.seed
            )
            tuned = train.finetune(
                shrunk.network, base, self.split, self.recipe, seed=self.recipe.seed, report=self._steps(what)
            )
            return self._export(tuned.network)

        settings = compression.model_dump(mode="json", exclude={"pruning", "precisions"})
        decided = self.decided_by(point=point.model_dump(mode="json"), compression=settings)
        return self.stages.keep(point.name, decided, make)

    def exported(self, name: str, network: Classifier) -> bytes:
        return self.stages.keep(f"{name}-onnx", self.decided_by(), lambda: self._export(network))

    def precisions(self, files: dict[str, bytes]) -> dict[str, tuple[bytes, Precision, str]]:
        named: dict[str, tuple[bytes, Precision, str]] = {}
        for index, (origin, onnx) in enumerate(files.items()):
            named[f"{origin}-{Precision.FP32}"] = (onnx, Precision.FP32, origin)
            if Precision.INT8 in self.recipe.compression.precisions:
                self.report("quantizing", index / len(files))
                decided = self.decided_by(parent=hashlib.sha256(onnx).hexdigest())
                int8 = self.stages.keep(f"{origin}-int8", decided, partial(self._quantized, onnx))
                named[f"{origin}-{Precision.INT8}"] = (int8, Precision.INT8, origin)
        return named

    def measured(self, files: dict[str, bytes], test: WindowSet) -> dict[str, evaluate.Measured]:
        """Taken once for the same files on the same machine: the table and the release tell one figure, not two."""

        def make() -> bytes:
            self.report("measuring", 0.0)
            timed = latency.measure(files, evaluate.example(test))
            found = {}
            for index, (name, onnx) in enumerate(files.items()):
                found[name] = asdict(evaluate.measure(onnx, test, timed=timed[name]))
                self.report("measuring", (index + 1) / len(files))
            return json.dumps(found).encode()

        digests = {name: hashlib.sha256(onnx).hexdigest() for name, onnx in files.items()}
        kept = self.stages.keep("measured", self.decided_by(files=digests, machine=machine.described()), make)
        return {name: evaluate.remembered(found) for name, found in json.loads(kept).items()}

    def _quantized(self, onnx: bytes) -> bytes:
        return quantize.to_int8(onnx, self._labelled().watts[:, 0, :])

    def _export(self, network: Classifier) -> bytes:
        heat = calibrate.temperature(network, self.validation)
        onnx = export.to_onnx(network, self.recipe.window.seconds, temperature=heat)
        export.check_parity(network, onnx, self.validation.watts[:64], temperature=heat)
        return onnx

    def _labelled(self) -> prune.Calibration:
        rng = np.random.default_rng(self.recipe.seed)
        count = len(self.train_windows)
        drawn = np.sort(rng.choice(count, size=min(CALIBRATION_WINDOWS, count), replace=False))
        watts = self.train_windows.watts[drawn].astype(np.float32)[:, None, :]
        return prune.Calibration(watts, self.train_windows.label[drawn].astype(np.int64))

    def _steps(self, what: str) -> Callable[[int, int, float], None]:
        return lambda step, steps, loss: self.report(f"{what} (loss {loss:.2f})", step / steps)
