"""Beside recipe: its tables as frozen types; each field's description says which values are accepted.

The error sentences of recipe_errors quote the descriptions.
"""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgewright_contract.release import Importance, Precision, Scope
from edgewright_pipelines.data.names import Subset

DAY_SECONDS = 86_400


class SplitBy(StrEnum):
    """What never stands on two sides of a split."""

    DAY = "day"
    DEVICE = "device"


class NetworkKind(StrEnum):
    """The network families that `network.build` knows."""

    THERMOMETER_CNN = "thermometer-cnn"
    STUDY_CNN = "study-cnn"


class Way(StrEnum):
    """How INT8 is made: rounded after training, or trained a little more while rounding (qat4: weights of 4 bits)."""

    PTQ = "ptq"
    QAT = "qat"
    QAT4 = "qat4"


class Section(BaseModel):
    """A table of a recipe: frozen, no unknown keys, no silent conversion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Channels = Annotated[int, Field(ge=1, le=4096)]
Kernel = Annotated[int, Field(ge=1, le=255)]


class Data(Section):
    """Which traces take part."""

    subsets: tuple[Subset, ...] = Field(
        tuple(Subset), min_length=1, description="a list of complete, incomplete and synthetic, at least one"
    )
    min_days: int = Field(8, ge=3, description="days that a class must have to take part: a whole number, 3 or more")
    top_classes: int | None = Field(
        None, ge=2, description="keep only so many of the most frequent classes: 2 or more, or leave the key out"
    )


class Split(Section):
    """How days are divided into train, validation and test."""

    by: SplitBy = Field(SplitBy.DAY, description='"day" or "device"')
    fold: int = Field(0, ge=0, description="which fold is the test side (by device only): 0 to folds - 1")
    folds: int = Field(5, ge=3, description="number of folds (by device only): 3 or more")
    min_devices: int = Field(3, ge=3, description="devices that a class must have (by device only): 3 or more")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.by is SplitBy.DAY and self.fold:
            raise ValueError(f'fold = {self.fold} has no meaning with by = "day"; leave it out or set by = "device"')
        if self.fold >= self.folds:
            raise ValueError(
                f"fold = {self.fold} does not exist; with folds = {self.folds} it is 0 to {self.folds - 1}"
            )
        return self


class Window(Section):
    """The model's input, cut from a trace of one reading a second."""

    seconds: int = Field(4096, ge=16, le=DAY_SECONDS, description="length of a window: 16 to 86400 seconds")
    hop_seconds: int = Field(512, ge=1, description="from one window's start to the next: 1 second to window.seconds")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.hop_seconds > self.seconds:
            raise ValueError(
                f"hop_seconds = {self.hop_seconds} is more than seconds = {self.seconds}, so readings would be skipped;"
                f" use 1 to {self.seconds}"
            )
        return self


class Network(Section):
    """Shape of the network; stages are separated by a pooling, of 2 in the thermometer-cnn."""

    kind: NetworkKind = Field(NetworkKind.THERMOMETER_CNN, description='"thermometer-cnn" or "study-cnn"')
    channels: tuple[Channels, ...] = Field(
        (48, 48, 64, 96, 128), min_length=1, description="channels of each convolution: a list of 1 to 4096"
    )
    kernels: tuple[Kernel, ...] = Field(
        (1, 5, 5, 5, 3), min_length=1, description="kernel size of each convolution: a list of odd numbers, 1 to 255"
    )
    hidden: int = Field(128, ge=1, le=8192, description="width of the hidden layer of the head: 1 to 8192")
    dropout: Fraction = Field(0.15, description="0 or more and less than 1")
    bin_seconds: int = Field(
        16, ge=4, description="seconds that the front folds into one step (thermometer-cnn only): 4 or more"
    )
    pool: int = Field(2, ge=2, le=64, description="how many steps become one between stages: 2 to 64 (study-cnn only)")
    heads: int = Field(
        1,
        ge=1,
        le=64,
        exclude_if=lambda heads: heads == 1,
        description="parts of the summary, each trained to answer alone (thermometer-cnn only): 1 to 64",
    )
    subspace: float = Field(
        1.0, gt=0, le=1, exclude_if=lambda part: part == 1, description="part of the statistics for each head: 0 to 1"
    )
    changes: bool = Field(False, exclude_if=lambda told: not told, description="true where the rhythm tells changes")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.channels) != len(self.kernels):
            raise ValueError(
                f"channels has {len(self.channels)} entries and kernels has {len(self.kernels)};"
                " both need one for each convolution"
            )
        if self.pool != 2 and self.kind is NetworkKind.THERMOMETER_CNN:
            raise ValueError(f'pool = {self.pool} has no meaning with kind = "{self.kind}"; leave it out')
        if (self.heads > 1 or self.changes) and self.kind is NetworkKind.STUDY_CNN:
            raise ValueError(f'heads and changes have no meaning with kind = "{self.kind}"; leave them out')
        if self.subspace < 1 and self.heads == 1:
            raise ValueError(f"subspace = {self.subspace} has no meaning without heads; leave it out or use 2 or more")
        if self.hidden % self.heads:
            raise ValueError(f"hidden = {self.hidden} cannot be shared by heads = {self.heads}; use a multiple of it")
        if even := [kernel for kernel in self.kernels if kernel % 2 == 0]:
            raise ValueError(f"kernels holds {even[0]}; only odd sizes keep the steps in place, so use {even[0] + 1}")
        return self

    def steps(self, window_seconds: int) -> int:
        """Length of the sequence that the first convolution sees."""
        return window_seconds // self.bin_seconds if self.kind is NetworkKind.THERMOMETER_CNN else window_seconds


class Augmentation(Section):
    """Random changes of a training window; heavier ones hurt the by-day figures."""

    warp: Fraction = Field(0.03, description="largest stretch of time, as a fraction: 0 or more and less than 1")
    log_scale_sigma: float = Field(0.004, ge=0, le=1, description="sigma of the log of the power scale: 0 to 1")
    hole_probability: float = Field(0.08, ge=0, le=1, description="chance of one gap in a window: 0 to 1")
    cutout_probability: float = Field(0.05, ge=0, le=1, description="chance of one part set to 0 W: 0 to 1")


class Training(Section):
    """One run of AdamW with warm-up and a cosine to zero, counted in steps so that it can be repeated."""

    steps: int = Field(6700, ge=1, le=10_000_000, description="a whole number of optimizer steps, 1 or more")
    batch: int = Field(64, ge=2, le=65_536, description="windows in one step: 2 to 65536")
    learning_rate: Positive = Field(4e-3, le=1, description="more than 0, at most 1")
    weight_decay: float = Field(0.03, ge=0, le=1, description="0 to 1")
    warmup_fraction: Fraction = Field(0.08, description="part of the steps: 0 or more and less than 1")
    label_smoothing: Fraction = Field(0.03, description="0 or more and less than 1")
    clip: Positive = Field(5.0, description="largest gradient norm: more than 0")
    ema: Fraction = Field(0.997, description="decay of the averaged weights: 0 (off) or more and less than 1")
    # Left out where it is 0, so that what was decided without it keeps its key.
    prior_shift: float = Field(
        0.0,
        ge=0,
        le=1,
        exclude_if=lambda shift: not shift,
        description="how far answers move from the classes' drawn shares to their real ones: 0 (not at all) to 1",
    )
    augmentation: Augmentation = Field(default_factory=Augmentation, description="a table [training.augmentation]")


class Pruning(Section):
    """One point of the pruning grid."""

    importance: Importance = Field(description='"l1", "l2", "taylor" or "random"')
    scope: Scope = Field(description='"global" or "local"')
    ratio: float = Field(gt=0, lt=1, description="part of the channels to remove: more than 0 and less than 1")
    # Keys that came later are left out where they are not set, so that what was decided without them keeps its key.
    ramps: Fraction = Field(
        0.0,
        exclude_if=lambda ratio: not ratio,
        description="part of the rhythm's ramps to remove too: 0 or more and less than 1",
    )
    rounds: int = Field(
        1,
        ge=1,
        le=8,
        exclude_if=lambda rounds: rounds == 1,
        description="in how many rounds, each with its fine-tuning: 1 to 8",
    )
    finetune_steps: int | None = Field(
        None,
        ge=0,
        exclude_if=lambda steps: steps is None,
        description="in all rounds: a whole number, 0 or more; left out: that of [compression]",
    )
    ways: tuple[Way, ...] | None = Field(
        None,
        min_length=1,
        exclude_if=lambda ways: ways is None,
        description='a list of "ptq", "qat" and "qat4"; left out: that of [compression]',
    )

    @property
    def name(self) -> str:
        """First part of the variant's name, such as `l2-global-25` or `l2-global-25-ramps-80`."""
        ramps = f"-ramps-{round(self.ramps * 100)}" if self.ramps else ""
        return f"{self.importance}-{self.scope}-{round(self.ratio * 100)}{ramps}"


class Compression(Section):
    """Which variants are made from the trained network."""

    pruning: tuple[Pruning, ...] = Field((), description="a list of {importance, scope, ratio, ramps}")
    round_to: int = Field(8, ge=1, le=128, description="pruned channels are a multiple of this: 1 to 128")
    finetune_steps: int = Field(600, ge=0, description="steps after pruning: a whole number, 0 or more")
    finetune_learning_rate: Positive = Field(1e-3, le=1, description="more than 0, at most 1")
    precisions: tuple[Precision, ...] = Field(
        tuple(Precision), min_length=1, description='a list of "fp32" and "int8"; "fp32" must be in it'
    )

    ways: tuple[Way, ...] = Field(
        (Way.PTQ,),
        min_length=1,
        description='how INT8 is made, each beside the other: a list of "ptq", "qat" and "qat4"',
    )
    qat_steps: int = Field(300, ge=1, description="steps of training aware of rounding: a whole number, 1 or more")
    qat_learning_rate: Positive = Field(2e-4, le=1, description="more than 0, at most 1")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(len(set(ways)) != len(ways) for ways in (self.ways, *(point.ways or () for point in self.pruning))):
            raise ValueError("ways names one way twice; name each once")
        if Precision.FP32 not in self.precisions:
            raise ValueError('precisions lacks "fp32"; every other variant is compared with its fp32 parent, so add it')
        if len(set(self.precisions)) != len(self.precisions):
            raise ValueError("precisions names one format twice; name each once")
        names = [point.name for point in self.pruning]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"pruning has two entries that would both be named {twice[0]}; ratios must differ by whole percents"
            )
        if empty := [point for point in self.pruning if round(point.ratio * 100) in (0, 100)]:
            raise ValueError(f"pruning ratio {empty[0].ratio} rounds to 0 or 100 percent; use 0.01 to 0.99")
        return self


class Audit(Section):
    """What a variant must keep to be released; the base that was trained is what it is compared with."""

    parity: Positive = Field(
        1e-4, lt=1, description="largest difference of a probability between torch and the file: 0 to 1, exclusive"
    )
    layer_decibels: float = Field(
        10.0, ge=-20, le=100, description="least signal-to-noise of each rounded layer's output: -20 to 100 dB"
    )
    energy_growth: float = Field(
        0.05, ge=0, le=1, description="growth of the energy error over the base, part of all energy: 0 to 1"
    )
    class_energy_growth: float = Field(
        0.5, ge=0, le=10, description="the same for one class, part of the energy that it took: 0 to 10"
    )


class Sweep(Section):
    """What `edgewright sweep` searches instead of a grid."""

    trials: int = Field(40, ge=1, le=100_000, description="finished trials: a whole number, 1 or more")
    lowest_ratio: float = Field(0.1, gt=0, lt=1, description="least part of the channels to remove: 0 to 1, exclusive")
    highest_ratio: float = Field(0.85, gt=0, lt=1, description="largest part of the channels to remove, 0 to 1")
    importances: tuple[Importance, ...] = Field(
        (Importance.L1, Importance.L2, Importance.TAYLOR), min_length=1, description="a list of importances"
    )
    scopes: tuple[Scope, ...] = Field(tuple(Scope), min_length=1, description='a list of "global" and "local"')
    ways: tuple[Way, ...] = Field(tuple(Way), min_length=1, description='a list of "ptq", "qat" and "qat4"')

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.lowest_ratio > self.highest_ratio:
            raise ValueError(f"lowest_ratio = {self.lowest_ratio} is above highest_ratio = {self.highest_ratio}")
        return self


class Release(Section):
    """What a release carries so that a node can test it by itself."""

    golden_windows: int = Field(32, ge=1, le=32, description="windows with expected answers: 1 to 32")
    tolerance: float = Field(
        1e-3, gt=0, lt=1, description="largest difference of a probability from the expected answer: 0 to 1, exclusive"
    )
