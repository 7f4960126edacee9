"""The trust document that new installs are judged with: opened from disk at start, replaced by a newer one only."""

from cryptography.hazmat.primitives.asymmetric import ec

from edgewright_agent import fetching
from edgewright_agent.download import Gateway
from edgewright_agent.ledger import Ledger
from edgewright_agent.refusal import Delay, Refusal, of_disk
from edgewright_agent.store import Store
from edgewright_contract import names, trust
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import EdgeNodeSpec


class Believed:
    """What this node trusts now. Without it nothing new is installed; what serves goes on."""

    def __init__(self, ledger: Ledger, store: Store, gateway: Gateway, root: ec.EllipticCurvePublicKey) -> None:
        self._ledger = ledger
        self._store = store
        self._gateway = gateway
        self._root = root
        self.opened: trust.OpenedTrust | None = None
        self.problem: tuple[Reason, str] | None = (Reason.TRUST_MISSING, "no trust document yet")

    def open(self) -> None:
        """Read the one that was believed before the restart."""
        digest = self._ledger.state.trust
        if digest is None:
            return
        try:
            self.opened = fetching.stored_trust(digest, self._store, self._root)
            self._judge()
        except Refusal as refusal:
            self.problem = (refusal.reason, refusal.message)

    async def renew(self, spec: EdgeNodeSpec) -> bool:
        """Take what the EdgeNode names, if it is newer; whether there is nothing left to try."""
        if spec.trust is None:
            return self.opened is not None
        if self.opened is not None and spec.trust == self.opened.digest:
            if self.problem is not None:
                self._judge()
            return True
        try:
            await self._gateway.fetch(self._store, spec.trust, names.MAX_TRUST_BYTES)
            opened = fetching.stored_trust(spec.trust, self._store, self._root)
        except Refusal as refusal:
            self.problem = (refusal.reason, refusal.message)
            return refusal.reason is Reason.TRUST_REFUSED
        except (Delay, OSError) as problem:
            delay = of_disk(problem) if isinstance(problem, OSError) else problem
            self.problem = (delay.reason, f"trust {spec.trust}: {delay.message}"[:512])
            return False
        known, believed = self._ledger.state.floors.trust, self._ledger.state.trust
        if opened.trust.sequence < known:
            self.problem = (Reason.TRUST_REFUSED, f"sequence {opened.trust.sequence} is older than {known}")
            return True
        if opened.trust.sequence == known and believed not in (None, opened.digest):
            said = (
                f"{opened.digest} has sequence {known}, as {believed} which is believed: only a higher one replaces it"
            )
            self.problem = (Reason.TRUST_REFUSED, said)
            return True
        self._ledger.trust(opened.digest, opened.trust.sequence)
        self.opened = opened
        self._judge()
        return True

    def _judge(self) -> None:
        """Say loudly where a release that serves would not be let in today; it goes on serving."""
        self.problem = None
        if self.opened is None:
            return
        for record in self._ledger.state.models.values():
            if record.live is None:
                continue
            try:
                manifest = record.live.assignment.manifest
                fetching.stored_manifest(manifest, record.registered_model, self.opened, self._store)
            except Refusal as refusal:
                if refusal.reason is Reason.BAD_SIGNATURE:
                    message = f"{record.name} serves what is no longer trusted: {refusal.message}"
                    self.problem = (Reason.BAD_SIGNATURE, message[:512])
