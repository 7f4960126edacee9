"""How a moment is written in every object and file."""

from datetime import UTC, datetime


def rfc3339(moment: datetime) -> str:
    """UTC to the second, as Kubernetes writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_time(moment: datetime) -> str:
    """UTC to the microsecond: the form of the times in a Lease (`metav1.MicroTime`)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
