"""One acting operator at a time: a Lease that is written with its resourceVersion. Whoever loses it ends."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edgewright_contract import names
from edgewright_operator.cluster import Cluster, Conflict

_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(slots=True)
class Election:
    """The attempts of one process, named `identity`. Ages are judged by our own monotonic clock, never by another's."""

    identity: str
    seconds: int
    seen: str = ""
    seen_at: float = 0.0

    async def hold(self, cluster: Cluster, now: datetime, monotonic: float) -> bool:
        """Take or renew the Lease; whether we hold it now."""
        lease = await cluster.lease(names.OPERATOR_LEASE)
        spec = (lease or {}).get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if lease is not None and holder and holder != self.identity:
            version = lease["metadata"]["resourceVersion"]
            if version != self.seen:
                self.seen, self.seen_at = version, monotonic
            if monotonic - self.seen_at < spec.get("leaseDurationSeconds", self.seconds):
                return False
        try:
            await cluster.write_lease(self._lease(lease, holder, now), create=lease is None)
        except Conflict:
            return False
        return True

    def _lease(self, lease: dict[str, Any] | None, holder: str, now: datetime) -> dict[str, Any]:
        body = lease or {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": names.OPERATOR_LEASE},
            "spec": {},
        }
        spec = dict(body.get("spec") or {})
        if holder != self.identity:
            spec["acquireTime"] = now.strftime(_FORMAT)
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
        spec |= {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self.seconds,
            "renewTime": now.strftime(_FORMAT),
        }
        return {**body, "spec": spec}
