"""Conditions and their reasons: an enumerated vocabulary, kstatus-compatible.

Ready, StorageOk and TrustOk are good when True; Reconciling, Stalled and Degraded are abnormal when True.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from edgewright_contract.models import ApiModel, Timestamp


class ConditionType(StrEnum):
    """What a condition is about."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    DEGRADED = "Degraded"
    STORAGE_OK = "StorageOk"
    TRUST_OK = "TrustOk"


class ConditionStatus(StrEnum):
    """Kubernetes' three truths."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Reason(StrEnum):
    """Why a condition or a model state is what it is. Documented in docs/compressedmodel.md and docs/edgenode.md."""

    # CompressedModel
    ROLLED_OUT = "RolledOut"
    ROLLING_OUT = "RollingOut"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    ALIAS_MOVED_BACK = "AliasMovedBack"
    MEASURING = "Measuring"
    SOAKING = "Soaking"
    WAITING_FOR_APPROVAL = "WaitingForApproval"
    OUTSIDE_WINDOW = "OutsideWindow"
    SUSPENDED = "Suspended"
    PAUSED = "Paused"
    GATE_FAILED = "GateFailed"
    GATE_INCONCLUSIVE = "GateInconclusive"
    GATE_ERROR = "GateError"
    NODE_DEADLINE = "NodeDeadline"
    PERMIT_MISSING = "PermitMissing"
    QUARANTINED = "Quarantined"
    NO_NODES = "NoNodes"
    NODES_OFFLINE = "NodesOffline"
    NO_VARIANT_FITS = "NoVariantFits"
    MODEL_NOT_FOUND = "ModelNotFound"
    ALIAS_NOT_FOUND = "AliasNotFound"
    VERSION_NOT_FOUND = "VersionNotFound"
    NOT_PUBLISHED = "NotPublished"
    RELEASE_CHANGED = "ReleaseChanged"
    RELEASE_REFUSED = "ReleaseRefused"
    SOURCE_UNAVAILABLE = "SourceUnavailable"
    GATEWAY_UNAVAILABLE = "GatewayUnavailable"
    INVALID_SPEC = "InvalidSpec"
    ORPHANED = "Orphaned"
    STALE = "Stale"
    SLOWER_THAN_ITS_CLASS = "SlowerThanItsClass"
    # EdgeNode
    SERVING = "Serving"
    SERVING_PREVIOUS = "ServingPrevious"
    NOTHING_ASSIGNED = "NothingAssigned"
    NO_MODEL = "NoModel"
    DOWNLOADING = "Downloading"
    DOWNLOAD_FAILED = "DownloadFailed"
    BAD_SIGNATURE = "BadSignature"
    BAD_DIGEST = "BadDigest"
    NOT_A_RELEASE = "NotARelease"
    DOWNGRADE = "Downgrade"
    EXPIRED = "Expired"
    WRONG_HARDWARE_CLASS = "WrongHardwareClass"
    UNSAFE_MODEL = "UnsafeModel"
    SELF_TEST_FAILED = "SelfTestFailed"
    SELF_TEST_CRASHED = "SelfTestCrashed"
    CRASH_LOOP = "CrashLoop"
    INFERENCE_ERRORS = "InferenceErrors"
    MEMORY_GROWTH = "MemoryGrowth"
    HANG = "Hang"
    DISAGREEMENT = "Disagreement"
    NO_HISTORY = "NoHistory"
    INSUFFICIENT_STORAGE = "InsufficientStorage"
    STORAGE_ERROR = "StorageError"
    STORED = "Stored"
    TRUSTED = "Trusted"
    TRUST_MISSING = "TrustMissing"
    TRUST_REFUSED = "TrustRefused"
    NEEDS_JOIN = "NeedsJoin"


class Condition(ApiModel):
    """One observation, as metav1.Condition."""

    type: ConditionType
    status: ConditionStatus
    reason: Annotated[str, Field(min_length=1, max_length=64)]
    message: Annotated[str, Field(max_length=1024)] = ""
    last_transition_time: Timestamp
    """When the status last flipped (RFC 3339)."""
    observed_generation: Annotated[int, Field(ge=0)] = 0


def merged(before: Iterable[Condition], now: Iterable[Condition]) -> list[Condition]:
    """The new list, where a condition whose status did not flip keeps its transition time."""
    known = {condition.type: condition for condition in before}
    result = []
    for condition in now:
        old = known.get(condition.type)
        if old is not None and old.status == condition.status:
            condition = condition.model_copy(update={"last_transition_time": old.last_transition_time})
        result.append(condition)
    return result
