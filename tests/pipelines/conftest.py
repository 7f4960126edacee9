"""Three made-up appliances that differ in level and rhythm: enough to learn, small enough to train in seconds."""

import numpy as np
import pytest

from edgewright_pipelines import export, networks, train, windows
from edgewright_pipelines.data.traces import Trace
from edgewright_pipelines.recipe import Recipe
from edgewright_pipelines.splits import Split
from edgewright_pipelines.train import Trained
from edgewright_pipelines.windows import WindowSet

TINY_WINDOW = 256
TINY_CLASSES = ("Fridge", "Kettle", "Router")


def _watts(appliance, rng):
    second = np.arange(86_400)
    if appliance == "Fridge":
        clean = np.where((second + rng.integers(900)) % 900 < 450, 80.0, 3.0)
    elif appliance == "Kettle":
        clean = np.where((second + rng.integers(200)) % 200 < 90, 1800.0, 1.0)
    else:
        clean = np.full(86_400, 9.0)
    return np.clip(np.round(clean + rng.normal(0, 1, 86_400)), 0, 65_535).astype(np.uint16)


def _days(side, count):
    for number, appliance in enumerate(TINY_CLASSES):
        for day in range(count):
            rng = np.random.default_rng([number, day, len(side)])
            yield Trace(
                name=f"complete/{appliance}/{side}_{day}",
                appliance=appliance,
                device=f"{appliance}/A{day % 2}",
                subset="complete",
                date=f"2011-06-{day + 1:02}",
                watts=_watts(appliance, rng),
                gap_seconds=0,
            )


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "window": {"seconds": TINY_WINDOW, "hop_seconds": TINY_WINDOW},
            "network": {
                "channels": (16, 24),
                "kernels": (1, 3),
                "hidden": 16,
                "dropout": 0.1,
                "bin_seconds": 16,
            },
            "training": {"steps": 60, "batch": 16},
            "compression": {"finetune_steps": 30},
        }
    )


@pytest.fixture(scope="session")
def tiny_split() -> Split:
    return Split(
        classes=TINY_CLASSES,
        train=tuple(_days("train", 3)),
        validation=tuple(_days("validation", 1)),
        test=tuple(_days("test", 1)),
        name="tiny",
    )


@pytest.fixture(scope="session")
def tiny_trained(tiny_recipe: Recipe, tiny_split: Split) -> Trained:
    network = networks.build(tiny_recipe.network, TINY_WINDOW, len(TINY_CLASSES), seed=3)
    return train.fit(network, tiny_split, tiny_recipe, seed=3)


@pytest.fixture(scope="session")
def tiny_onnx(tiny_trained: Trained) -> bytes:
    """The file of `tiny_trained`; the exporter takes seconds for each."""
    return export.to_onnx(tiny_trained.network, TINY_WINDOW)


@pytest.fixture(scope="session")
def tiny_test(tiny_split: Split) -> WindowSet:
    return windows.cut(tiny_split.test, TINY_CLASSES, window=TINY_WINDOW, hop=TINY_WINDOW)


@pytest.fixture(scope="session")
def tiny_drawn(tiny_split: Split) -> WindowSet:
    """Training windows to calibrate on."""
    return windows.cut(tiny_split.train, TINY_CLASSES, window=TINY_WINDOW, hop=TINY_WINDOW * 8)
