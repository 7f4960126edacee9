"""The flows that are compared: each turns the same trained base into one INT8 file, with the same steps of training."""

import copy
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch_pruning
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch.nn import functional

from edgewright_pipelines import quantize, sampling
from edgewright_pipelines.compress import Kept
from edgewright_pipelines.flow import Line
from edgewright_pipelines.scores import score
from edgewright_pipelines.session import INPUT, OUTPUT, probabilities

CALIBRATION: Final = 256
NNCF_SECONDS: Final = 600
_NNCF: Final = Path(__file__).with_name("nncf_quantize.py")


def ours(line: Line, base: Kept) -> dict[str, bytes]:
    """Prune by Taylor importance, distill, round both ways; of the two the better on validation."""
    compressor = line.compressor()
    kept = compressor.pruned(base, line.recipe.compression.pruning[0])
    made = compressor.precisions(kept, base)[1:]
    best = max(made, key=lambda each: _validation(line, each.onnx))
    return {best.name: best.onnx}


def _validation(line: Line, model: bytes) -> float:
    return score(probabilities(model, line.validation.watts), line.validation).macro_f1


def tutorial(line: Line, base: Kept) -> bytes:
    """torch-pruning's README flow: BasePruner by group magnitude, the output layer ignored, training on the labels,
    torch.onnx.export. Its own rounding of channels, no distillation. Gives the FP32 file.
    """
    network = copy.deepcopy(base.network).eval()
    example = torch.zeros(2, 1, line.recipe.window.seconds)
    fixed = [
        module
        for module in network.modules()
        if (own := list(module.parameters(recurse=False))) and not any(parameter.requires_grad for parameter in own)
    ]
    pruner = torch_pruning.pruner.BasePruner(
        network,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=line.recipe.compression.pruning[0].ratio,
        ignored_layers=[network.output, *fixed],
        round_to=line.recipe.compression.round_to,
    )
    pruner.step()
    _train(line, network)
    answering = torch.nn.Sequential(network, torch.nn.Softmax(dim=1)).eval()
    program = torch.onnx.export(
        answering,
        (example,),
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
        external_data=False,
        verbose=False,
    )
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def _train(line: Line, network: torch.nn.Module) -> None:
    recipe = line.recipe
    draws = sampling.sampler(line.split.train, line.split.classes, recipe.window.seconds, recipe.training.augmentation)
    rng = np.random.default_rng(recipe.seed)
    torch.manual_seed(recipe.seed)
    steps = recipe.compression.finetune_steps
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.compression.finetune_learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    for _ in range(steps):
        watts, labels = (torch.from_numpy(part) for part in draws.draw(recipe.training.batch, rng))
        optimizer.zero_grad()
        functional.cross_entropy(network(watts), labels).backward()
        optimizer.step()
        schedule.step()
    network.eval()


def quantized_static(line: Line, fp32: bytes) -> bytes:
    """ONNX Runtime's documented way: quant_pre_process, then quantize_static as it comes (QDQ, S8S8, per tensor)."""
    with tempfile.TemporaryDirectory() as folder:
        source, ready, target = (Path(folder) / name for name in ("fp32.onnx", "ready.onnx", "int8.onnx"))
        source.write_bytes(fp32)
        # symbolic shape inference fails on this graph ('NoneType' has no len()); the documented option leaves it out
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        quantize_static(str(ready), str(target), _Windows(calibration(line)))
        return target.read_bytes()


def nncf(line: Line, fp32: bytes, python: Path) -> bytes:
    """`nncf.quantize` as it comes, in its own environment."""
    with tempfile.TemporaryDirectory() as folder:
        source, windows, target = (Path(folder) / name for name in ("fp32.onnx", "windows.npy", "int8.onnx"))
        source.write_bytes(fp32)
        np.save(windows, calibration(line))
        told = subprocess.run(
            [str(python), str(_NNCF), str(source), str(windows), str(target)],
            capture_output=True,
            text=True,
            timeout=NNCF_SECONDS,
        )
        if told.returncode:
            raise RuntimeError(told.stderr.strip().splitlines()[-1])
        return target.read_bytes()


def calibration(line: Line) -> np.ndarray:
    """The same windows for every flow: float32 [n, 1, window]."""
    rng = np.random.default_rng(line.recipe.seed)
    count = len(line.train_windows)
    drawn = np.sort(rng.choice(count, size=min(CALIBRATION, count), replace=False))
    return line.train_windows.watts[drawn].astype(np.float32)[:, None, :]


class _Windows(CalibrationDataReader):
    def __init__(self, windows: np.ndarray) -> None:
        self.parts = iter(np.array_split(windows, max(1, len(windows) // 32)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        part = next(self.parts, None)
        return None if part is None else {INPUT: part}


def left_in_float(model: bytes) -> int:
    """Layers of a file that did not become INT8."""
    return len(quantize.in_float(model))
