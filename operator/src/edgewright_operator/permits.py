"""Signs the permits that a decision asks for, with the key that is mounted from a Secret."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import structlog

from edgewright_contract import keys, permit
from edgewright_contract.edgenode import AssignedModel
from edgewright_operator.rollback import PermitWish

log = structlog.get_logger()

LIFE_SECONDS = 30 * 86_400
"""A node that was asleep for so long gets another when it returns."""


def attached(
    assignments: Mapping[str, AssignedModel | None], wishes: Mapping[str, PermitWish], key_file: Path, now: datetime
) -> tuple[dict[str, AssignedModel | None], str]:
    """The assignments with their permits, and why they have none, if so.

    Without one a node still goes back to its own last known good; it refuses any other older release and says so.
    """
    found = dict(assignments)
    if not wishes:
        return found, ""
    try:
        key = keys.load_private(key_file.read_bytes())  # read each time: it may be rotated
    except (OSError, keys.KeyFormatError) as error:
        problem = f"{len(wishes)} nodes go back without a permit, as the permit key cannot be used: {error}"
        log.warning("no permits", key_file=str(key_file), error=str(error))
        return found, f"{problem}; nodes that do not hold that release as their last known good refuse it"
    for name, wish in wishes.items():
        held = found.get(name)
        if held is not None:
            text = permit.sign(_permit(wish, now), key)
            found[name] = held.model_copy(update={"permit": text})
    return found, ""


def _permit(wish: PermitWish, now: datetime) -> permit.Permit:
    return permit.Permit(
        registered_model=wish.registered_model,
        node=wish.node,
        from_sequence=wish.from_sequence,
        to_manifest=wish.to_manifest,
        not_after=int(now.timestamp()) + LIFE_SECONDS,
    )
