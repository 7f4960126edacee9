"""One acting operator at a time: a Lease that is written with its resourceVersion. Whoever loses it ends.

The client's own election ends on a broken connection and tells ages by the wall clock (docs/decisions/0011).
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any

from edgewright_contract import names
from edgewright_contract.timestamps import micro_time
from edgewright_operator.api import Conflict
from edgewright_operator.cluster import Cluster

_SURE = 2 / 3
"""Share of the Lease's life in which we write; the rest is for what is still on its way."""


class Standing(Enum):
    """What an attempt found out."""

    HELD = auto()
    WAITING = auto()
    LOST = auto()


@dataclass(slots=True)
class Election:
    """The attempts of one process, named `identity`. Ages are judged by our own monotonic clock, never by another's."""

    identity: str
    seconds: int
    seen: str = ""
    seen_at: float = 0.0
    term: int = 0
    """Transition count of our own term; 0: we never held it."""
    sure_until: float = float("-inf")
    """Until when (monotonic) nobody else can hold it: the fence of every write."""

    async def hold(self, cluster: Cluster, now: datetime, monotonic: float) -> Standing:
        """Take or renew the Lease.

        Raises:
            ClusterError: not known; whoever held it may go on until `sure_until`.
        """
        lease = await cluster.lease(names.OPERATOR_LEASE)
        spec = (lease or {}).get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if self.term and (holder != self.identity or spec.get("leaseTransitions") != self.term):
            return self._lost()  # somebody acted in between, even if nobody does now
        if lease is not None and holder and holder != self.identity:
            version = lease["metadata"]["resourceVersion"]
            if version != self.seen:
                self.seen, self.seen_at = version, monotonic
            if monotonic - self.seen_at < spec.get("leaseDurationSeconds", self.seconds):
                return Standing.WAITING
        body = self._lease(lease, holder, now)
        try:
            await cluster.write_lease(body, create=lease is None)
        except Conflict:
            return self._lost() if self.term else Standing.WAITING
        self.term = body["spec"]["leaseTransitions"]
        self.sure_until = monotonic + self.seconds * _SURE
        return Standing.HELD

    async def release(self, cluster: Cluster, now: datetime) -> None:
        """Let the next one begin at once; only after the last write.

        Raises:
            ClusterError
        """
        self.sure_until = float("-inf")
        lease = await cluster.lease(names.OPERATOR_LEASE)
        if lease is not None and lease["spec"].get("holderIdentity") == self.identity:
            spec = {**lease["spec"], "holderIdentity": "", "renewTime": micro_time(now)}
            await cluster.write_lease({**lease, "spec": spec}, create=False)

    def _lost(self) -> Standing:
        self.sure_until = float("-inf")
        return Standing.LOST

    def _lease(self, lease: dict[str, Any] | None, holder: str, now: datetime) -> dict[str, Any]:
        body = lease or {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": names.OPERATOR_LEASE},
            "spec": {},
        }
        spec = dict(body.get("spec") or {})
        if holder != self.identity:
            spec["acquireTime"] = micro_time(now)
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
        spec |= {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self.seconds,
            "renewTime": micro_time(now),
        }
        return {**body, "spec": spec}
