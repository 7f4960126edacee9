"""The two data sets as lines of the pipeline: Tracebase by day, and ACSF1 by the split that the archive gives it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edgewright_pipelines import flow, windows
from edgewright_pipelines.data import source
from edgewright_pipelines.data.source import Source
from edgewright_pipelines.data.traces import Trace
from edgewright_pipelines.flow import Line
from edgewright_pipelines.recipe import Recipe
from edgewright_pipelines.splits import Split
from edgewright_pipelines.stages import Stages

ACSF1_CLASSES: Final = (
    *("phone charger", "coffee machine", "computer station", "fridge", "hi-fi"),
    *("lamp", "laptop charger", "microwave", "printer", "television"),
)
ACSF1_SECONDS: Final = 1456  # of 1,460 values, as a multiple of 16
# Written out, so that the bench compares the same network whatever the recipes choose.
NETWORK: Final = {
    "kind": "thermometer-cnn",
    "channels": [48, 48, 64, 96, 128],
    "kernels": [1, 5, 5, 5, 3],
    "hidden": 128,
    "bin_seconds": 16,
}
# The archive's series are normalized one by one; shifted and stretched, they stand in the range of real appliances.
SHIFT: Final = 1.5
WATTS: Final = 200.0


@dataclass(frozen=True, slots=True)
class Effort:
    """Steps of the base, of fine-tuning and of training aware of rounding."""

    base: int
    finetune: int
    qat: int


def recipe(name: str, seed: int, seconds: int, effort: Effort, *, ratio: float) -> Recipe:
    """The same network and settings for every flow."""
    return Recipe.model_validate_json(
        json.dumps(
            {
                "name": name,
                "seed": seed,
                "window": {"seconds": seconds, "hop_seconds": seconds},
                "network": NETWORK,
                "training": {"steps": effort.base},
                "compression": {
                    "pruning": [{"importance": "taylor", "scope": "local", "ratio": ratio}],
                    "finetune_steps": effort.finetune,
                    "finetune_learning_rate": 2e-3,
                    "ways": ["ptq", "qat"],
                    "qat_steps": effort.qat,
                },
            }
        )
    )


def tracebase(folder: Path, chosen: Recipe, cache: Path) -> Line:
    """Days of Tracebase, no day on two sides."""
    found, _ = source.obtain(folder, cache)
    return flow.opened(chosen, found, Stages(cache / "stages"), lambda *_: None)


def acsf1(folder: Path, chosen: Recipe, cache: Path) -> Line:
    """100 series to learn from, every fifth of them for validation, and 100 to test on."""
    learning, test = (list(_series(folder / f"ACSF1_{side}.ts", side)) for side in ("TRAIN", "TEST"))
    held = [trace for index, trace in enumerate(learning) if index % 5 == 4]
    train = [trace for index, trace in enumerate(learning) if index % 5 != 4]
    split = Split(classes=ACSF1_CLASSES, train=tuple(train), validation=tuple(held), test=tuple(test), name="acsf1")
    cut = [
        windows.cut(side, ACSF1_CLASSES, window=ACSF1_SECONDS, hop=ACSF1_SECONDS, active_only=False)
        for side in (split.train, split.validation, split.test)
    ]
    given = Source((*learning, *test), synthetic=False)
    return Line(chosen, given, split, *cut, given.digest(), Stages(cache / "stages"), lambda *_: None)


def _series(file: Path, side: str) -> Iterator[Trace]:
    rows = [line for line in file.read_text().splitlines() if line and line[0] not in "#@"]
    for index, row in enumerate(sorted(rows, key=lambda row: row.rpartition(":")[2])):
        values, _, label = row.rpartition(":")
        watts = (np.array(values.split(","), dtype=np.float64) + SHIFT).clip(0) * WATTS
        appliance = ACSF1_CLASSES[int(label)]
        device = f"{appliance}/{side}{index}"
        name, whole = f"{side}/{appliance}/{index}", watts.round().astype(np.uint16)
        yield Trace(name, appliance, device, "complete", "2013-01-01", whole, 0)
