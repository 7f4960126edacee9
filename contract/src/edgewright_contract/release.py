"""release.json: all variants of one training run, with what was measured of each. A file inside the signed folder."""

from collections.abc import Mapping
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Final, Self

from pydantic import Field, ValidationError, model_validator

from edgewright_contract import names, strictjson
from edgewright_contract.digests import Digest
from edgewright_contract.models import SignedModel, first_fault

SCHEMA_VERSION: Final = 1

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$", max_length=63)]
VariantName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", max_length=63)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, lt=2**53)]


class NotARelease(ValueError):
    """Genuine perhaps, but not a release: it lacks a valid release.json."""


class Precision(StrEnum):
    """Number format of weights and activations."""

    FP32 = "fp32"
    INT8 = "int8"


class Importance(StrEnum):
    """How a channel's worth is judged before pruning."""

    L1 = "l1"
    L2 = "l2"
    TAYLOR = "taylor"
    RANDOM = "random"


class Scope(StrEnum):
    """Whether channels compete within their layer or in the whole network."""

    LOCAL = "local"
    GLOBAL = "global"


class TaskName(StrEnum):
    """What the network was trained for."""

    IDENTIFY = "identify"
    """Which appliance is it: probabilities that sum to 1."""
    DISAGGREGATE = "disaggregate"
    """Which appliances run in a summed load: one probability for each, and a second output with their watts."""


class Pruning(SignedModel):
    """How a variant was pruned."""

    importance: Importance
    scope: Scope
    ratio: Annotated[float, Field(gt=0, lt=1)]
    """Asked-for share of channels removed."""


class Window(SignedModel):
    """The model's input: `seconds` samples at 1 Hz, raw watts; a new window begins every `hop_seconds`."""

    seconds: Annotated[int, Field(ge=16, le=86_400)]
    hop_seconds: Annotated[int, Field(ge=1, le=86_400)]


class ClassScore(SignedModel):
    """Scores of one class on the test split."""

    f1: Fraction
    energy_kwh: Annotated[float, Field(ge=0)]
    """Energy that the class really took."""
    energy_error_kwh: float
    """Energy attributed to it minus that."""


class Disaggregation(SignedModel):
    """Scores of the second task, over all windows of the test split."""

    mae_watts: Annotated[float, Field(ge=0)]
    """Mean absolute error of the watts of an appliance in a window."""
    sae: Annotated[float, Field(ge=0)]
    """Mean over classes of |energy given - energy taken| / energy taken."""
    match_rate: Fraction
    """Sum of the smaller over sum of the larger of watts given and taken."""


class Accuracy(SignedModel):
    """Scores of the exported file on the test split, in ONNX Runtime."""

    macro_f1: Fraction
    """Per window, mean over classes."""
    day_macro_f1: Fraction
    """Per day: sum of log-probabilities over its windows."""
    accuracy: Fraction
    bce: Annotated[float, Field(ge=0)]
    """Mean over windows of the sum over classes of binary cross-entropy, p clipped at 1e-7."""
    energy_error: Annotated[float, Field(ge=0)]
    """Sum over classes of |attributed - true| kWh, divided by the true kWh."""
    per_class: Annotated[dict[str, ClassScore], Field(max_length=128)]
    disaggregation: Disaggregation | None = None
    """Of the task disaggregate only; there a window counts as a day, and f1 is of on and off."""


class Latency(SignedModel):
    """One window at one thread on the machine that built the release: an order of variants, not a promise to a node."""

    p50_microseconds: Annotated[float, Field(gt=0)]
    p95_microseconds: Annotated[float, Field(gt=0)]
    machine: Annotated[str, Field(max_length=128)]
    runtime_version: Annotated[str, Field(max_length=32)]


class Golden(SignedModel):
    """What this variant must answer on the golden windows."""

    answers: Annotated[list[list[Fraction]], Field(min_length=1, max_length=32)]
    """Probabilities, [windows][classes], as the exported file gave them when the release was built."""
    tolerance: Annotated[float, Field(gt=0, le=0.5)]
    """Largest absolute difference that another CPU's arithmetic may show."""


class Histogram(SignedModel):
    """How many values fell between the edges: bin i holds those of at least edge i-1 and less than edge i."""

    edges: Annotated[list[float], Field(max_length=15)]
    """Ascending; the first and the last bin are open."""
    counts: Annotated[list[Count], Field(min_length=1, max_length=16)]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.counts) != len(self.edges) + 1:
            raise ValueError(f"{len(self.edges)} edges make {len(self.edges) + 1} bins, not {len(self.counts)}")
        if any(low >= high for low, high in pairwise(self.edges)):
            raise ValueError("edges must ascend")
        return self


class Reference(SignedModel):
    """What this variant answered on validation windows: what a node compares its own windows with."""

    windows: Annotated[int, Field(ge=1, lt=2**53)]
    """How many there were."""
    threshold: Fraction
    """An answer whose highest probability is below counts as unknown."""
    unknown_ratio: Fraction
    """Share of these windows that it left unknown."""
    confidence: Histogram
    """Highest probability of each window."""
    mean_watts: Histogram

    @model_validator(mode="after")
    def _of_all(self) -> Self:
        for histogram in (self.confidence, self.mean_watts):
            if sum(histogram.counts) != self.windows:
                raise ValueError(f"each histogram must count all {self.windows} windows")
        return self


class Variant(SignedModel):
    """One compressed form of the trained network."""

    name: VariantName
    file: Annotated[str, Field(pattern=r"^variants/[a-z0-9-]{1,63}\.onnx$")]
    digest: Digest
    bytes: Annotated[int, Field(gt=0, le=names.MAX_MODEL_BYTES)]
    precision: Precision
    parent: VariantName | None = None
    """The FP32 variant that it was quantized from, or none for an FP32 variant."""
    pruning: Pruning | None = None
    parameters: Count
    macs: Count
    """Multiply-accumulates for one window."""
    accuracy: Accuracy | None
    """None where the data was synthetic: then no score means anything."""
    latency: Latency
    golden: Golden
    reference: Reference | None = None
    """None: nodes report neither unknown windows nor drift."""


class GoldenWindows(SignedModel):
    """The golden windows: uint16 little-endian watts, [count][window seconds], in one file."""

    file: Annotated[str, Field(pattern=r"^golden\.u16$")] = "golden.u16"
    digest: Digest
    count: Annotated[int, Field(ge=1, le=32)]


class Provenance(SignedModel):
    """Where the release comes from."""

    recipe_digest: Digest
    data_digest: Digest
    synthetic: bool
    created: Annotated[str, Field(max_length=32)]
    """RFC 3339, UTC."""
    run_id: Annotated[str, Field(max_length=64)] | None = None


class Release(SignedModel):
    """All variants of one training run."""

    schema_version: Annotated[int, Field(ge=1, le=1)] = SCHEMA_VERSION
    task: TaskName = TaskName.IDENTIFY
    registered_model: Name
    version: Annotated[int, Field(ge=1, lt=2**31)]
    sequence: Annotated[int, Field(ge=1, lt=2**53)]
    """UTC seconds at signing; only grows."""
    labels: Annotated[list[Annotated[str, Field(min_length=1, max_length=63)]], Field(min_length=2, max_length=128)]
    """Class names, in the order of the model's output."""
    window: Window
    variants: Annotated[list[Variant], Field(min_length=1, max_length=64)]
    golden: GoldenWindows
    provenance: Provenance
    not_after: Annotated[int, Field(ge=1, lt=2**53)] | None = None
    """UTC seconds after which no node installs it anew; none by default."""
    hardware_classes: Annotated[list[Annotated[str, Field(max_length=63)]], Field(max_length=20)] = []
    """Shell patterns of the classes that it may run on; empty: all."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels repeat")
        by_name = {variant.name: variant for variant in self.variants}
        if len(by_name) != len(self.variants):
            raise ValueError("variant names repeat")
        for variant in self.variants:
            if variant.precision is Precision.INT8:
                parent = by_name.get(variant.parent or "")
                if parent is None or parent.precision is not Precision.FP32:
                    raise ValueError(f"variant {variant.name}: its FP32 parent must be in the release")
            answers = variant.golden.answers
            if len(answers) != self.golden.count or any(len(row) != len(self.labels) for row in answers):
                shape = f"[{self.golden.count}][{len(self.labels)}]"
                raise ValueError(f"variant {variant.name}: golden answers must be {shape}")
        return self

    def variant(self, name: str) -> Variant:
        """The variant of that name.

        Raises:
            KeyError: there is none.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(name)


def parse(data: bytes) -> Release:
    """Read release.json.

    Raises:
        NotARelease: with the place and the reason.
    """
    try:
        return Release.model_validate(strictjson.loads(data, limit=names.MAX_RELEASE_BYTES, what=names.RELEASE_FILE))
    except strictjson.StrictJsonError as error:
        raise NotARelease(str(error)) from None
    except ValidationError as error:
        raise NotARelease(f"{names.RELEASE_FILE}: {first_fault(error, whole='top level')}") from None


def parse_signed(data: bytes, files: Mapping[str, str]) -> Release:
    """Read release.json and compare it with the signed files: path → `sha256:…`.

    Raises:
        NotARelease: not valid, or it names a file that is not signed, or under another digest.
    """
    release = parse(data)
    named = {variant.file: variant.digest for variant in release.variants}
    for path, digest in {**named, release.golden.file: release.golden.digest}.items():
        if files.get(path) != digest:
            signed = files.get(path, "nothing")
            raise NotARelease(f"{names.RELEASE_FILE} gives {path} as {digest}, the manifest as {signed}")
    return release
