"""Whether a wave may begin, and whether nodes may be moved now: approval and the maintenance window. Pure."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from edgewright_contract import names
from edgewright_contract.compressedmodel import MaintenanceWindow
from edgewright_contract.conditions import Reason
from edgewright_operator.facts import ModelFacts, ReleaseFacts, SourceProblem
from edgewright_operator.report import Standing

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def misplaced(window: MaintenanceWindow | None) -> SourceProblem | None:
    """What the schema cannot see: a time zone that does not exist."""
    if window is None:
        return None
    try:
        ZoneInfo(window.time_zone)
    except (KeyError, ValueError, OSError):  # KeyError: ZoneInfoNotFoundError; the others: names that are no names
        message = f"spec.rollout.window.timeZone: {window.time_zone!r} is no time zone, write one such as Europe/Berlin"
        return SourceProblem(Reason.INVALID_SPEC, message)
    return None


def is_open(window: MaintenanceWindow | None, now: datetime) -> bool:
    """Whether nodes may be moved; a window that passes midnight belongs to the day on which it began."""
    if window is None:
        return True
    local = now.astimezone(ZoneInfo(window.time_zone))
    clock, today = local.strftime("%H:%M"), _DAYS[local.weekday()]
    if window.start < window.end:
        return today in window.days and window.start <= clock < window.end
    yesterday = _DAYS[(local - timedelta(days=1)).weekday()]
    return (today in window.days and clock >= window.start) or (yesterday in window.days and clock < window.end)


def approval(manifest: str, wave: int, generation: int) -> str:
    """What the annotation must say so that wave `wave` (from 0) of this manifest may begin under this spec."""
    return f"{manifest}/{wave}/{generation}"


def withheld(model: ModelFacts, release: ReleaseFacts, wave: int, now: datetime) -> Standing | None:
    """Why wave `wave` may not begin, if so."""
    rollout = model.spec.rollout
    given = model.annotations.get(names.ANNOTATION_APPROVE)
    where = f"version {release.release.version}: wave {wave + 1} of {len(rollout.waves)}"
    if rollout.approval and given != approval(release.manifest, wave, model.generation):
        command = f"kubectl edgewright approve {model.name} -n {model.namespace}"
        return Standing(Reason.WAITING_FOR_APPROVAL, f"{where} waits for `{command}`", reconciling=True)
    if not is_open(rollout.window, now):
        return closed(rollout.window, where)
    return None


def closed(window: MaintenanceWindow | None, where: str) -> Standing:
    """The standing while the window is closed."""
    assert window is not None  # noqa: S101 - none is always open
    when = f"{', '.join(window.days)} {window.start}-{window.end} {window.time_zone}"
    return Standing(Reason.OUTSIDE_WINDOW, f"{where} waits for the maintenance window {when}", reconciling=True)
