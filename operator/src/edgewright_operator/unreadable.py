"""The status of a CompressedModel that cannot be read: what stood there stays, the conditions say why. Pure."""

from datetime import datetime
from typing import Any

from pydantic import ValidationError

from edgewright_contract.conditions import Condition, ConditionStatus, ConditionType, merged
from edgewright_contract.timestamps import rfc3339
from edgewright_operator.facts import SourceProblem

_TRUTH = {
    ConditionType.READY: ConditionStatus.FALSE,
    ConditionType.RECONCILING: ConditionStatus.FALSE,
    ConditionType.STALLED: ConditionStatus.TRUE,
}


def status_of(item: dict[str, Any], problem: SourceProblem, now: datetime) -> dict[str, Any]:
    """The whole status to write; equal to what is there once it was written."""
    before = item.get("status") or {}
    generation = item["metadata"].get("generation", 0)
    entries = [
        Condition(
            type=kind,
            status=truth,
            reason=problem.reason,
            message=f"{problem.message}: nothing moves until it is mended"[:1024],
            last_transition_time=rfc3339(now),
            observed_generation=generation,
        )
        for kind, truth in _TRUTH.items()
    ]
    entries = merged(_readable(before.get("conditions") or []), entries)
    others = [entry for entry in before.get("conditions") or [] if entry.get("type") not in set(_TRUTH)]
    conditions = [entry.model_dump(by_alias=True, exclude_none=True, mode="json") for entry in entries]
    return {**before, "observedGeneration": generation, "conditions": conditions + others}


def _readable(conditions: list[dict[str, Any]]) -> list[Condition]:
    found = []
    for entry in conditions:
        try:
            found.append(Condition.model_validate(entry))
        except ValidationError:
            continue
    return found
