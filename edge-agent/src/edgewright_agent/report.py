"""From the supervisor's records to EdgeNode.status: pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edgewright_agent.refusal import Delay
from edgewright_agent.state import ModelRecord
from edgewright_contract.conditions import Condition, ConditionStatus, ConditionType, Reason, merged
from edgewright_contract.edgenode import EdgeNodeStatus, Figures, Hardware, ModelState, ModelStatus
from edgewright_contract.timestamps import rfc3339


@dataclass(frozen=True)
class Problems:
    """What is wrong beside the models."""

    trust: tuple[Reason, str] | None
    disk: Delay | None
    """Why the state is not on disk."""
    damage: str = ""
    """What of the state was damaged when the agent started."""
    spec: str = ""
    """Why EdgeNode.spec is not followed."""


def status(
    hardware: Hardware,
    records: Iterable[ModelRecord],
    figures: Mapping[str, Figures],
    before: Iterable[Condition],
    problems: Problems,
    now: datetime,
) -> EdgeNodeStatus:
    """The whole status; a condition that did not flip keeps its time."""
    held = sorted(records, key=lambda record: record.name)
    return EdgeNodeStatus(
        hardware=hardware,
        models=[model_status(record, figures.get(record.name)) for record in held],
        conditions=merged(before, _conditions(held, problems, rfc3339(now))),
    )


def model_status(record: ModelRecord, figures: Figures | None) -> ModelStatus:
    """One model as the operator reads it."""
    return ModelStatus(
        name=record.name,
        state=record.state,
        reason=record.reason,
        message=record.message[:512],
        target=record.target.manifest if record.target else None,
        trial=record.trial,
        live=record.live.served() if record.live else None,
        previous=record.previous.served() if record.previous else None,
        benchmark=record.benchmark[:8],
        figures=figures,
    )


def as_patch(now: EdgeNodeStatus) -> dict[str, Any]:
    """As it goes over the wire; absent fields stay out, so that the atomic parts replace their former selves."""
    return now.model_dump(mode="json", by_alias=True, exclude_none=True)


def _conditions(records: list[ModelRecord], problems: Problems, stamp: str) -> list[Condition]:
    waiting = [record for record in records if record.state is not ModelState.LIVE]
    if problems.spec:
        ready = (ConditionStatus.FALSE, Reason.INVALID_SPEC, problems.spec)
    elif not records:
        ready = (ConditionStatus.TRUE, Reason.NOTHING_ASSIGNED, "")
    elif not waiting:
        ready = (ConditionStatus.TRUE, Reason.SERVING, "")
    elif all(record.live for record in records):
        ready = (ConditionStatus.TRUE, Reason.SERVING_PREVIOUS, f"{waiting[0].name}: {waiting[0].message}")
    else:
        missing = next(record for record in records if record.live is None)
        ready = (ConditionStatus.FALSE, Reason.NO_MODEL, f"{missing.name}: {missing.reason} {missing.message}")
    stored = _storage(records, problems)
    trusted = (ConditionStatus.FALSE, *problems.trust) if problems.trust else (ConditionStatus.TRUE, Reason.TRUSTED, "")
    rows = ((ConditionType.READY, ready), (ConditionType.STORAGE_OK, stored), (ConditionType.TRUST_OK, trusted))
    return [
        Condition(type=kind, status=truth, reason=reason.value, message=message[:1024], last_transition_time=stamp)
        for kind, (truth, reason, message) in rows
    ]


def _storage(records: list[ModelRecord], problems: Problems) -> tuple[ConditionStatus, Reason, str]:
    if problems.disk is not None:
        unsaved = f"the state is kept in memory only: {problems.disk.message}"
        return ConditionStatus.FALSE, problems.disk.reason, unsaved
    if problems.damage:
        said = f"{problems.damage}; the node went on with what was whole. Storage that does this is to be replaced."
        return ConditionStatus.FALSE, Reason.STORAGE_ERROR, said
    full = {Reason.INSUFFICIENT_STORAGE.value, Reason.STORAGE_ERROR.value}
    short = next((record for record in records if record.reason in full), None)
    if short is not None:
        return ConditionStatus.FALSE, Reason(short.reason), short.message
    return ConditionStatus.TRUE, Reason.STORED, ""
