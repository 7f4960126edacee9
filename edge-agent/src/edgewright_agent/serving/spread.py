"""How a loaded model's answers and inputs are spread on this node, beside what its release says of validation windows.

Windows of own readings that do not overlap are counted, live, in shadow and replayed. Requests are not: whoever sends
them chooses what they hold.
"""

from bisect import bisect_right
from collections.abc import Sequence

from edgewright_agent import drift
from edgewright_agent.serving.stated import Reference


class Spread:
    """Counts of one loaded model, in the bins of its reference."""

    __slots__ = ("_confidence", "_mean_watts", "_reference", "unknown")

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self.unknown = 0
        """Windows whose highest probability was below the threshold."""
        self._confidence = [0] * len(reference.confidence.counts)
        self._mean_watts = [0] * len(reference.mean_watts.counts)

    def take(self, confidence: float, mean_watts: float) -> None:
        """One window: its highest probability and its mean power."""
        reference = self._reference
        self.unknown += confidence < reference.threshold
        self._confidence[bisect_right(reference.confidence.edges, confidence)] += 1
        self._mean_watts[bisect_right(reference.mean_watts.edges, mean_watts)] += 1

    def unknown_ratio(self) -> float | None:
        """Share of the windows that it left unknown; None before the first."""
        windows = sum(self._confidence)
        return self.unknown / windows if windows else None

    def drift(self) -> dict[str, float]:
        """By what was compared, its drift score; empty before there are enough windows."""
        return drift.scores(self._expected(), self._found())

    def farthest(self) -> float | None:
        """The largest of these scores, as the supervisor reports it; None before there are enough windows."""
        return drift.farthest(self._expected(), self._found())

    def to_json(self) -> dict[str, object]:
        """As the control socket gives it: counts, so that the supervisor can add them up over servers."""
        return {"unknown": self.unknown, "found": self._found(), "expected": self._expected()}

    def _found(self) -> dict[str, Sequence[int]]:
        return {"confidence": self._confidence, "meanWatts": self._mean_watts}

    def _expected(self) -> dict[str, Sequence[int]]:
        return {"confidence": self._reference.confidence.counts, "meanWatts": self._reference.mean_watts.counts}
