"""Why a step of a model's life did not succeed: a reason of the contract's vocabulary and a sentence."""

import errno

from edgewright_contract.conditions import Reason


class Refusal(Exception):
    """The release must not be served on this node; trying the same again changes nothing."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message[:512]


class Delay(Exception):
    """The step failed for now; the same step is tried again later."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message[:512]


def of_disk(error: OSError) -> Delay:
    """What the disk refused, as a reason to try again later."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMLINK)
    reason = Reason.INSUFFICIENT_STORAGE if full else Reason.STORAGE_ERROR
    return Delay(reason, f"{error.filename or 'the disk'}: {error.strerror or error}")
