"""Whether a model that serves on trial is well, from two looks at what the server counts. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgewright_agent.events import Unhealthy
from edgewright_contract.conditions import Reason

MIN_ERRORS: Final = 5
"""Fewer failed windows than this are no burst."""


@dataclass(frozen=True)
class Limits:
    """Beyond these a model on trial is reverted."""

    error_rate: float
    """Share of windows, since the last look or since it was loaded, that failed or had no finite answer."""
    growth_bytes: int
    """Resident memory of the server above what it was when the model went live."""


@dataclass(frozen=True)
class Look:
    """What the server counted of one model when it was asked."""

    manifest: str
    variant: str
    samples: int
    errors: int
    rss_bytes: int


def look(values: Mapping[str, Any]) -> Look:
    """From one entry of the `figures` answer."""
    return Look(
        str(values.get("manifest", "")),
        str(values.get("variant", "")),
        int(values.get("samples", 0)),
        int(values.get("errors", 0)),
        int(values.get("rssBytes", 0)),
    )


def same(one: Look, other: Look) -> bool:
    """Whether both are about the same release in the same variant."""
    return (one.manifest, one.variant) == (other.manifest, other.variant)


def judge(first: Look, before: Look, now: Look, limits: Limits) -> Unhealthy | None:
    """Compare with the former look and with the first one of the trial."""
    grown = now.rss_bytes - first.rss_bytes
    if grown > limits.growth_bytes:
        stated = f"the server grew by {grown >> 20} MB since it went live, {limits.growth_bytes >> 20} MB are allowed"
        return Unhealthy(Reason.MEMORY_GROWTH, stated)
    for samples, failed in ((before.samples, before.errors), (0, 0)):
        errors = now.errors - failed
        windows = max(now.samples - samples, errors)
        if errors >= MIN_ERRORS and errors > limits.error_rate * windows:
            return Unhealthy(Reason.INFERENCE_ERRORS, f"{errors} of {windows} windows failed or had no finite answer")
    return None
