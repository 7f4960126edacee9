"""Between the base and measuring: each pruned network in FP32 and INT8, with the facts that the audit judges.

`train.fit → prune.shrink → train.finetune → export.to_onnx → quantize.to_int8 or qat.to_int8 → evaluate.measure`
Every step is a stage of its own, so that a rerun, and a sweep, compute only what is new.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import torch

from edgewright_pipelines import audit, export, fold, layout, machine, nibbles, prune, quantize, rounds
from edgewright_pipelines.networks import Classifier
from edgewright_pipelines.recipe import Precision, Pruning, Recipe, Way
from edgewright_pipelines.splits import Split
from edgewright_pipelines.stages import Stages
from edgewright_pipelines.tasks import Identify, Task
from edgewright_pipelines.windows import WindowSet

Report = Callable[[str, float], None]
"""What runs, and which fraction of it is done."""

BASE: Final = "base"
CALIBRATION_WINDOWS = 256
JUDGED_WINDOWS = 64  # for parity and for the noise of rounding


@dataclass(frozen=True, slots=True)
class Kept:
    """A trained network with its history of pruning; None for the base."""

    name: str
    network: Classifier
    point: Pruning | None = None
    pruning: prune.Audit | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """One variant's file, still unmeasured; `parent` names the FP32 file of an INT8 one."""

    name: str
    onnx: bytes
    precision: Precision
    parent: str | None
    point: Pruning | None
    facts: audit.Facts


@dataclass(frozen=True, slots=True)
class Compressor:
    """What all variants of one base share. `decided` is what decided the base: the key of every stage behind it."""

    recipe: Recipe
    split: Split
    train_windows: WindowSet
    validation: WindowSet
    decided: Mapping[str, Any]
    stages: Stages
    report: Report
    task: Task = field(default_factory=Identify)

    def variants(self, base: Kept) -> tuple[Made, ...]:
        """All variants of the recipe: the base and each point of the grid, in FP32 and in INT8 by each way."""
        kept = [base, *(self.pruned(base, point) for point in self.recipe.compression.pruning)]
        return tuple(made for each in kept for made in self.precisions(each, base))

    def precisions(self, kept: Kept, base: Kept) -> tuple[Made, ...]:
        """The FP32 file of one network and its INT8 files."""
        compression = self.recipe.compression
        parent = self.fp32(kept)
        ways = (kept.point and kept.point.ways) or compression.ways
        ways = ways if Precision.INT8 in compression.precisions else ()
        return (parent, *(self.int8(kept, parent, base, way) for way in ways))

    def pruned(self, base: Kept, point: Pruning) -> Kept:
        """Pruned and fine-tuned towards the labels and the base's answers."""
        compression = self.recipe.compression

        def make() -> bytes:
            done = rounds.pruned(
                base.network,
                point,
                self._labelled(),
                self.split,
                self.recipe,
                self.task,
                self._steps(f"pruning {point.name}"),
            )
            facts = audit.Facts(0.0, done.audit).as_json()["pruning"]
            return _packed(facts, _weights(done.network))

        how = compression.model_dump(mode="json", include={"round_to", "finetune_steps", "finetune_learning_rate"})
        decided = self._decided(point=point.model_dump(mode="json", exclude={"ways"}), compression=how)
        facts, weights = _unpacked(self.stages.keep(f"{point.name}-pruned", decided, make))
        pruning = audit.remembered({"parity": 0.0, "pruning": facts, "noise": {}, "in_float": []}).pruning
        assert pruning is not None  # noqa: S101 (for the type checker)
        widths = {layer.layer: layer.achieved for layer in pruning.layers}
        example = torch.from_numpy(self.validation.watts[:2].astype(np.float32))[:, None, :]
        network = prune.narrowed(base.network, widths, example)
        network.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True))
        return Kept(point.name, network.eval(), point, pruning)

    def fp32(self, kept: Kept) -> Made:
        """The file of one network, its temperature inside, on the axes that are faster on this machine."""

        def make() -> bytes:
            self.report(f"exporting ({kept.name})", 0.0)
            heat, task = self.task.temperature(kept.network, self.validation), self.task
            onnx = export.to_onnx(
                kept.network,
                self.recipe.window.seconds,
                temperature=heat,
                answering=task.answering,
                outputs=task.outputs,
            )
            onnx = layout.faster(onnx, self._judged())
            parity = export.parity(kept.network, onnx, self._judged(), temperature=heat, answering=task.answering)
            return _packed({"parity": parity}, onnx)

        weights, processor = _digest(_weights(kept.network)), machine.described()
        decided = self._decided(weights=weights, folded=fold.REVISION, machine=processor)
        found, onnx = _unpacked(self.stages.keep(f"{kept.name}-{Precision.FP32}", decided, make))
        facts = audit.Facts(found["parity"], kept.pruning)
        return Made(f"{kept.name}-{Precision.FP32}", onnx, Precision.FP32, None, kept.point, facts)

    def int8(self, kept: Kept, parent: Made, base: Kept, way: Way) -> Made:
        """The INT8 file of one network, by one way."""
        name = f"{kept.name}-{Precision.INT8}" + ("" if way is Way.PTQ else f"-{way}")

        def make() -> bytes:
            rounded, exact = self._rounded(kept, parent, base, way, name)
            sharp = self.task.sharpened(rounded, self.validation)
            sharp = nibbles.packed(sharp) if way is Way.QAT4 else sharp
            noise = quantize.noise(exact, rounded, self._judged())
            return _packed({"noise": noise, "in_float": quantize.in_float(sharp)}, sharp)

        compression, processor = self.recipe.compression, machine.described()
        lesson = {} if way is Way.PTQ else {"steps": compression.qat_steps, "rate": compression.qat_learning_rate}
        decided = self._decided(parent=_digest(parent.onnx), way=way.value, lesson=lesson, machine=processor)
        found, onnx = _unpacked(self.stages.keep(name, decided, make))
        facts = replace(parent.facts, noise=found["noise"], in_float=tuple(found["in_float"]))
        return Made(name, onnx, Precision.INT8, parent.name, kept.point, facts)

    def _rounded(self, kept: Kept, parent: Made, base: Kept, way: Way, name: str) -> tuple[bytes, bytes]:
        """The INT8 file, and the FP32 file whose layers it rounds."""
        processor = machine.described()
        scheme = quantize.scheme_for(str(processor["architecture"]), str(processor["simd"]))
        scheme = replace(scheme, weight_bits=4) if way is Way.QAT4 else scheme
        if way is Way.PTQ:
            self.report(f"rounding ({name})", 0.0)
            return quantize.to_int8(parent.onnx, self._labelled().watts[:, 0, :], scheme), parent.onnx
        from edgewright_pipelines import qat  # takes seconds to import, and not every recipe asks for it

        compression, training = self.recipe.compression, self.recipe.training
        draws = self.task.draws(self.split, self.recipe)
        lesson = qat.Lesson(compression.qat_steps, training.batch, compression.qat_learning_rate, training.clip)
        steps = self._steps(f"rounding {name}")
        aware = qat.to_int8(
            kept.network,
            base.network,
            draws,
            lesson,
            seed=self.recipe.seed,
            scheme=scheme,
            report=steps,
            task=self.task,
        )
        return aware.int8, aware.twin

    def _decided(self, **more: Any) -> dict[str, Any]:
        return {**self.decided, **more}

    def _judged(self) -> Any:
        return self.validation.watts[:: max(1, len(self.validation) // JUDGED_WINDOWS)][:JUDGED_WINDOWS]

    def _labelled(self) -> prune.Calibration:
        rng = np.random.default_rng(self.recipe.seed)
        count = len(self.train_windows)
        drawn = np.sort(rng.choice(count, size=min(CALIBRATION_WINDOWS, count), replace=False))
        watts = self.train_windows.watts[drawn].astype(np.float32)[:, None, :]
        return prune.Calibration(watts, self.task.truth(self.train_windows)[drawn])

    def _steps(self, what: str) -> Callable[[int, int, float], None]:
        return lambda step, steps, loss: self.report(f"{what} (loss {loss:.2f})", step / steps)


def _weights(network: Classifier) -> bytes:
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    return buffer.getvalue()


def _packed(facts: Any, content: bytes) -> bytes:
    """One line of JSON, then the content."""
    return json.dumps(facts).encode() + b"\n" + content


def _unpacked(stored: bytes) -> tuple[Any, bytes]:
    facts, _, content = stored.partition(b"\n")
    return json.loads(facts), content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
