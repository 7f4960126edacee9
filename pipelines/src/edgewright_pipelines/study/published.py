"""Beside the report: the published table, and which of our variants stands beside each of its lines."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Line:
    """One line as published: binary cross-entropy, F1, megabytes, milliseconds; and our variant of the same kind."""

    name: str
    bce: float
    f1: float
    megabytes: float
    milliseconds: float
    ours: str


PUBLISHED: Final = (
    Line("base", 2.97, 0.68, 0.83, 54.9, "published/base-fp32"),
    Line("L1 local 25 %", 1.87, 0.67, 0.47, 29.5, "published/l1-local-25-fp32"),
    Line("L1 global 20 %", 1.67, 0.45, 0.48, 33.8, "published/l1-global-20-fp32"),
    Line("L2 local 35 %", 1.35, 0.66, 0.36, 32.8, "published/l2-local-35-fp32"),
    Line("L2 global 25 %", 1.57, 0.73, 0.39, 34.9, "published/l2-global-25-fp32"),
    Line("INT8", 4.99, 0.63, 0.23, 25.5, "published/base-int8"),
    Line("pruned + INT8", 4.88, 0.63, 0.11, 19.2, "published/l2-local-35-int8"),
)

BCE_NOTE: Final = (
    "The published reduction of the binary cross-entropy, its split and its machine are unknown: compare directions and"
    " ratios to the own base, never the values, and the milliseconds likewise. Ours is the mean over windows of the sum"
    " over classes, probabilities clipped at 1e-7."
)
