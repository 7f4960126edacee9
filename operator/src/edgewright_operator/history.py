"""Where a rollout begins and ends in the status: release, wave and the last ten outcomes. Pure."""

from datetime import datetime

from edgewright_contract.compressedmodel_status import (
    CompressedModelStatus,
    HistoryEntry,
    Outcome,
    ReleaseRef,
    WaveStatus,
)
from edgewright_contract.conditions import Reason
from edgewright_contract.timestamps import rfc3339
from edgewright_operator import quarantine
from edgewright_operator.facts import ReleaseFacts

LENGTH = 10


def ref(release: ReleaseFacts) -> ReleaseRef:
    """The release as a status names it."""
    found = release.release
    return ReleaseRef(version=found.version, sequence=found.sequence, manifest=release.manifest)


def begun(status: CompressedModelStatus, target: ReleaseRef, waves: int, now: datetime) -> CompressedModelStatus:
    """The status, with a new rollout begun where the release is another than before."""
    if status.release == target and status.wave is not None:
        return status
    before = status.release
    unproven = before is not None and before not in (target, status.last_good)
    if unproven and before is not None and quarantine.holds(status, before.manifest) is None:
        status = ended(status, Outcome.SUPERSEDED, Reason.ROLLING_OUT, now)
    fresh = {"release": target, "started": rfc3339(now), "gate": None, "paused": None, "hardware_classes": []}
    return status.model_copy(update={**fresh, "wave": unbegun(waves, now)})


def unbegun(waves: int, now: datetime) -> WaveStatus:
    """The first wave, before any node is exposed in it."""
    return WaveStatus(index=0, of=waves, size=0, exposed=0, since=rfc3339(now), soak_elapsed_seconds=0)


def ended(
    status: CompressedModelStatus, outcome: Outcome, reason: Reason | str, now: datetime
) -> CompressedModelStatus:
    """The status with the present rollout written into its history."""
    if status.release is None:
        return status
    entry = HistoryEntry(
        version=status.release.version,
        sequence=status.release.sequence,
        manifest=status.release.manifest,
        started=status.started or rfc3339(now),
        ended=rfc3339(now),
        outcome=outcome,
        reason=str(reason)[:64],
    )
    return status.model_copy(update={"history": [entry, *status.history][:LENGTH]})
