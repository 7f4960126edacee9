"""Outside a pod the node renews its own tokens: TokenRequest on its own ServiceAccount, at half of their life.

In a pod the kubelet does it and this loop does not run.
"""

import asyncio
import base64
import json
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from edgewright_agent import disk
from edgewright_agent.kube import Kube, KubeError
from edgewright_contract import names

_LOG = logging.getLogger(__name__)
LIFE_SECONDS: Final = 30 * 86_400
"""Asked for; the API server may give less, and the half of what it gives counts."""
_UNAUTHORIZED: Final = 401


class NotAToken(ValueError):
    """The file holds no token that is bound to a node."""


@dataclass(frozen=True)
class Claims:
    """What a token says of itself; the API server checks it, we only plan by it."""

    node: str
    node_uid: str
    issued: int
    expires: int

    def half(self) -> int:
        """UTC second from which it should be renewed."""
        return (self.issued + self.expires) // 2


def claims(token: str) -> Claims:
    """Read a bound ServiceAccount token.

    Raises:
        NotAToken: it is none, or bound to no node.
    """
    try:
        payload = token.split(".")[1]
        body = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        node = body["kubernetes.io"]["node"]
        return Claims(str(node["name"]), str(node["uid"]), int(body["iat"]), int(body["exp"]))
    except (LookupError, TypeError, ValueError) as error:
        raise NotAToken(
            f"no token that is bound to a node ({type(error).__name__}): run edgewright nodes join"
        ) from None


def request(bound: Claims, audience: str | None) -> dict[str, Any]:
    """The TokenRequest for the same node; without an audience it is for the API server."""
    reference = {"apiVersion": "v1", "kind": "Node", "name": bound.node, "uid": bound.node_uid}
    spec: dict[str, Any] = {"boundObjectRef": reference, "expirationSeconds": LIFE_SECONDS}
    if audience is not None:
        spec["audiences"] = [audience]
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}


class Renewal:
    """Keeps the node's two tokens alive."""

    def __init__(
        self,
        kube: Kube,
        service_account: str,
        files: Mapping[Path, str | None],
        now: Callable[[], datetime],
        rng: random.Random,
        *,
        retry_seconds: float,
        ops: disk.FileOps | None = None,
    ) -> None:
        self._kube, self._account, self._files = kube, service_account, files
        self._now, self._rng, self._retry, self._ops = now, rng, retry_seconds, ops or disk.FileOps()

    async def run(self) -> None:
        """Renew for ever."""
        while True:
            pause = await self.once()
            await asyncio.sleep(pause)

    async def once(self) -> float:
        """Renew what is due; seconds until the next look."""
        pauses = [await self._one(path, audience) for path, audience in self._files.items()]
        return max(1.0, min(pauses)) * self._rng.uniform(0.9, 1.0)

    async def _one(self, path: Path, audience: str | None) -> float:
        try:
            present = claims(path.read_text())
            now = int(self._now().timestamp())
            if present.issued <= now < present.half():
                return float(present.half() - now)
            path_of_account = f"/api/v1/namespaces/{names.NAMESPACE}/serviceaccounts/{self._account}/token"
            answer = await self._kube.create(path_of_account, request(present, audience))
            token = str(answer["status"]["token"])
            fresh = claims(token)
            disk.replace_file(self._ops, path, token.encode())
        except (KubeError, OSError, NotAToken, LookupError, TypeError) as error:
            lost = isinstance(error, KubeError) and error.status == _UNAUTHORIZED
            hint = "; the token expired or its Node is gone: run edgewright nodes join" if lost else ""
            _LOG.warning("renewal of %s: %s%s", path.name, error, hint)
            return self._retry
        _LOG.info("%s renewed until UTC second %d", path.name, fresh.expires)
        return max(1.0, (fresh.expires - fresh.issued) / 2)  # by its own life: this clock may be wrong
