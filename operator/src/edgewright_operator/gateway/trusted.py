"""The trust.json that the gateway goes by: root signed it, and no older one is ever taken back."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from edgewright_contract import trust
from edgewright_contract.dsse import SignatureError
from edgewright_operator.gateway import whole_file


class TrustRefused(Exception):
    """trust.json is missing, not signed by the root key, or older than one that was seen."""


@dataclass(slots=True)
class TrustKeeper:
    """`file` is what the administrator gives; `kept` is our copy of the highest sequence, which survives restarts."""

    file: Path
    kept: Path
    root: ec.EllipticCurvePublicKey
    _data: bytes = b""
    _highest: trust.OpenedTrust | None = None

    def current(self) -> tuple[trust.OpenedTrust, bytes]:
        """The document of `file` and its bytes: what new releases are judged by.

        Raises:
            TrustRefused
        """
        try:
            data = self.file.read_bytes()
            highest = self._known()
            opened = highest if highest and data == self._data else trust.open_trust(data, self.root)
        except OSError as error:
            raise TrustRefused(f"trust.json cannot be read: {error.strerror}") from None
        except SignatureError as error:
            raise TrustRefused(str(error)) from None
        if highest is not None and opened is not highest:
            _compare(opened, highest)
        self._keep(opened, data)
        return opened, data

    def highest(self) -> tuple[trust.OpenedTrust, bytes]:
        """The newest that was ever seen, also while `file` is damaged: what releases that are here are judged by.

        Raises:
            TrustRefused: none was seen yet, and `file` gives none.
        """
        try:
            return self.current()
        except TrustRefused:
            if (known := self._known()) is None:
                raise
            return known, self._data

    def _known(self) -> trust.OpenedTrust | None:
        if self._highest is None:
            try:
                self._data = self.kept.read_bytes()
                self._highest = trust.open_trust(self._data, self.root)
            except (OSError, SignatureError):  # lost, or of a former root key
                return None
        return self._highest

    def _keep(self, opened: trust.OpenedTrust, data: bytes) -> None:
        if opened is self._highest:
            return
        whole_file.write(self.kept, data)
        self._highest, self._data = opened, data


def _compare(opened: trust.OpenedTrust, highest: trust.OpenedTrust) -> None:
    given, seen = opened.trust.sequence, highest.trust.sequence
    if given < seen:
        raise TrustRefused(f"trust.json has sequence {given}, and {seen} was seen: an older one is not taken back")
    if given == seen and opened.trust != highest.trust:
        raise TrustRefused(f"trust.json says other things than the one of the same sequence {seen}: raise its sequence")
