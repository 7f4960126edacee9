"""Front door of the pipeline: one TOML file becomes one frozen Recipe; later stages read it and none changes it."""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from edgewright_contract.release import Importance, Precision, Scope, TaskName
from edgewright_pipelines.data.names import Subset
from edgewright_pipelines.recipe_errors import RecipeError, did_you_mean, sentences
from edgewright_pipelines.recipe_sections import (
    Audit,
    Augmentation,
    Compression,
    Data,
    Network,
    NetworkKind,
    Pruning,
    Release,
    Section,
    Split,
    SplitBy,
    Sweep,
    Training,
    Way,
    Window,
)

__all__ = [
    "Audit",
    "Augmentation",
    "Compression",
    "Data",
    "Importance",
    "Network",
    "NetworkKind",
    "Precision",
    "Pruning",
    "Recipe",
    "RecipeError",
    "Release",
    "Scope",
    "Split",
    "SplitBy",
    "Subset",
    "Sweep",
    "TaskName",
    "Training",
    "Way",
    "Window",
    "load",
]

_TEMPLATE = "pipelines/recipes/identify.toml"


class Recipe(Section):
    """Everything that decides what a run makes, besides the data itself."""

    name: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        description="the registered model: lower-case letters, digits and '-', at most 63, such as nilm-identify",
    )
    task: TaskName = Field(TaskName.IDENTIFY, description='"identify" or "disaggregate"')
    seed: int = Field(0, ge=0, lt=2**32, description="a whole number from 0 to 4294967295")
    data: Data = Field(default_factory=Data, description="a table [data]")
    split: Split = Field(default_factory=Split, description="a table [split]")
    window: Window = Field(default_factory=Window, description="a table [window]")
    network: Network = Field(default_factory=Network, description="a table [network]")
    training: Training = Field(default_factory=Training, description="a table [training]")
    compression: Compression = Field(default_factory=Compression, description="a table [compression]")
    audit: Audit = Field(default_factory=Audit, description="a table [audit]")
    sweep: Sweep = Field(default_factory=Sweep, description="a table [sweep]")
    release: Release = Field(default_factory=Release, description="a table [release]")

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_fit(self.network, self.window.seconds)
        if self.compression.pruning and min(self.network.channels) < self.compression.round_to:
            raise ValueError(
                f"compression.round_to = {self.compression.round_to} is more than the narrowest entry of"
                f" network.channels, {min(self.network.channels)}, so that layer could not be pruned; use at most that"
            )
        if self.network.kind is NetworkKind.STUDY_CNN and any(point.ramps for point in self.compression.pruning):
            raise ValueError(
                f'compression.pruning asks for ramps, but "{self.network.kind}" has no ramps; leave them out'
            )
        return self

    def digest(self) -> str:
        """`sha256:…` of all values, defaults included, whatever their order or spelling in the file."""
        values = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return f"sha256:{hashlib.sha256(values.encode()).hexdigest()}"


def _check_fit(network: Network, seconds: int) -> None:
    if network.kind is NetworkKind.THERMOMETER_CNN and seconds % network.bin_seconds:
        raise ValueError(
            f"window.seconds = {seconds} is not a multiple of network.bin_seconds = {network.bin_seconds}; change one"
        )
    steps = network.steps(seconds)
    for stage, kernel in enumerate(network.kernels, start=1):
        if steps < kernel:
            raise ValueError(
                f"the network is longer than the window: convolution {stage} has a kernel of {kernel} but only {steps}"
                " steps are left; use a longer window.seconds, fewer network.channels and kernels, or smaller kernels"
            )
        steps //= network.pool
    if network.kind is NetworkKind.STUDY_CNN and not steps:
        raise ValueError(
            f"the network is longer than the window: after {len(network.kernels)} poolings by {network.pool} no step is"
            " left; use a longer window.seconds, fewer network.channels and kernels, or a smaller network.pool"
        )


def load(path: Path, quick: bool = False) -> Recipe:
    """Read a recipe; `quick` lays its `[quick]` table over the rest.

    Both forms are checked either way, so a broken `[quick]` table shows at the first run.
    Raises RecipeError, whose text is one sentence for each mistake.
    """
    table = read(path)
    overrides = table.pop("quick", {})
    if not isinstance(overrides, dict):
        raise RecipeError(f"{path}: quick is {overrides!r}; it must be a table [quick] of overrides.")
    full = _validate(path, table, where="")
    short = _validate(path, overlaid(table, overrides), where="quick.") if overrides else full
    return short if quick else full


def read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        others = [entry.name for entry in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, others)
        raise RecipeError(f"There is no recipe at {path}.{hint} See {_TEMPLATE} for an example.") from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path} is not valid TOML: {error}.") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text (byte {error.start}); a recipe is a TOML text file.") from None
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror or error}.") from None


def overlaid(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overrides.items():
        below = merged.get(key)
        merged[key] = overlaid(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _validate(path: Path, table: Mapping[str, Any], where: str) -> Recipe:
    try:
        # By way of JSON, because only there strict mode takes lists for tuples and strings for enums, and nothing else.
        return Recipe.model_validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        raise RecipeError("\n".join(sentences(path, Recipe, error, where))) from None
