from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from edgewright_agent.refusal import Delay
from edgewright_agent.report import Problems, status
from edgewright_agent.state import Held, ModelRecord
from edgewright_contract.conditions import ConditionType, Reason
from edgewright_contract.digests import digest_of
from edgewright_contract.edgenode import Assignment, Hardware, ModelState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FINE = Problems(None, None)
HARDWARE = Hardware(
    class_="amd64", arch="amd64", cpu="x", cores=1, memory_bytes=1, agent_version="1", runtime_version="1"
)


def held(version: int) -> Held:
    some = digest_of(b"x")
    wish = Assignment(version=version, sequence=version, manifest=digest_of(b"%d" % version), variant="v")
    return Held(assignment=wish, release=some, golden=some, file=some, trust=some)


def record(state: ModelState, live: int | None = None, **changes: Any) -> ModelRecord:
    lives = held(live) if live else None
    return ModelRecord(name="home/nilm", registered_model="nilm", state=state, live=lives, **changes)


SERVES = record(ModelState.LIVE, 1)
MOVING = record(ModelState.PENDING, 1, reason=Reason.DOWNLOADING, message="2 of 3 files")
EMPTY = record(ModelState.PENDING, None, reason=Reason.DOWNLOADING, message="0 of 3 files")
FULL = record(ModelState.PENDING, 1, reason=Reason.INSUFFICIENT_STORAGE, message="1 bytes free, 9 needed")
REFUSED = Delay(Reason.STORAGE_ERROR, "disk: Input/output error")


@pytest.mark.parametrize(
    ("kind", "records", "problems", "expected"),
    [
        (ConditionType.READY, [], FINE, ("True", Reason.NOTHING_ASSIGNED, "")),
        (ConditionType.READY, [SERVES], FINE, ("True", Reason.SERVING, "")),
        (ConditionType.READY, [MOVING], FINE, ("True", Reason.SERVING_PREVIOUS, "home/nilm: 2 of 3 files")),
        (ConditionType.READY, [EMPTY], FINE, ("False", Reason.NO_MODEL, "home/nilm: Downloading 0 of 3 files")),
        (ConditionType.READY, [SERVES], Problems(None, None, spec="why"), ("False", Reason.INVALID_SPEC, "why")),
        (ConditionType.STORAGE_OK, [SERVES], FINE, ("True", Reason.STORED, "")),
        (ConditionType.STORAGE_OK, [FULL], FINE, ("False", Reason.INSUFFICIENT_STORAGE, "1 bytes free, 9 needed")),
        (
            ConditionType.STORAGE_OK,
            [SERVES],
            Problems(None, REFUSED),
            ("False", Reason.STORAGE_ERROR, "in memory only"),
        ),
        (ConditionType.STORAGE_OK, [SERVES], Problems(None, None, "lost"), ("False", Reason.STORAGE_ERROR, "lost; ")),
        (ConditionType.TRUST_OK, [SERVES], FINE, ("True", Reason.TRUSTED, "")),
        (
            ConditionType.TRUST_OK,
            [SERVES],
            Problems((Reason.TRUST_MISSING, "none yet"), None),
            ("False", Reason.TRUST_MISSING, "none yet"),
        ),
    ],
)
def test_each_condition_says_what_is(
    kind: ConditionType, records: list[ModelRecord], problems: Problems, expected: tuple[str, Reason, str]
) -> None:
    found = {it.type: it for it in status(HARDWARE, records, {}, [], problems, NOW).conditions}[kind]
    assert (found.status, found.reason) == expected[:2]
    assert expected[2] in found.message
    assert bool(found.message) is bool(expected[2])
