"""The agent's calls to the API server: watch of one EdgeNode, merge patch of its status, renewal of one Lease."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import httpx2

from edgewright_agent.backoff import pause_seconds
from edgewright_contract import names
from edgewright_contract.timestamps import micro_time

STALL_SECONDS: Final = 75.0
"""A watch without an event or bookmark for so long counts as dead (the server sends a bookmark each minute)."""
WATCH_SECONDS: Final = 3600
FIRST_PAUSE: Final = 1.0
MAX_BACKOFF_SECONDS: Final = 30.0
_EDGE_NODES: Final = f"/apis/{names.GROUP}/{names.VERSION}/{names.EDGE_NODES}"
_LEASES: Final = f"/apis/coordination.k8s.io/v1/namespaces/{names.NAMESPACE}/leases"
_MERGE: Final = {"Content-Type": "application/merge-patch+json"}
_SLIM: Final = {"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}
_INITIAL_END: Final = "k8s.io/initial-events-end"


class KubeError(Exception):
    """The API server refused or could not be reached; the sentence says what and why."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class _Expired(Exception):
    """The resource version is too old: begin anew."""


@dataclass(frozen=True)
class Seen:
    """What the watch knows: the EdgeNode, or that there is none."""

    edge_node: Mapping[str, Any] | None


class Kube:
    """The API server, for one node. `token` is asked for every request, because tokens are renewed on disk."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        token: Callable[[], str],
        node: str,
        *,
        rng: random.Random,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._client = client
        self._token = token
        self._node = node
        self._rng = rng
        self._stall = stall_seconds
        self._version: str | None = None

    async def watch(self, on_error: Callable[[str], None]) -> AsyncIterator[Seen]:
        """Each state of the EdgeNode, for ever: broken and stalled watches are renewed with growing pauses."""
        failures = 0
        while True:
            try:
                async for seen in self._watch_once():
                    failures = 0
                    yield seen
            except _Expired:
                self._version = None
            except (httpx2.HTTPError, KubeError, TimeoutError, OSError, ValueError, LookupError, TypeError) as error:
                failures += 1  # the last three: not what an API server sends
                on_error(f"watch of EdgeNode {self._node}: {type(error).__name__}: {error}")
                await asyncio.sleep(pause_seconds(failures, FIRST_PAUSE, MAX_BACKOFF_SECONDS, self._rng))
            else:
                await asyncio.sleep(self._rng.uniform(0.0, 0.5))

    async def _watch_once(self) -> AsyncIterator[Seen]:
        parameters = {
            "watch": "true",
            "fieldSelector": f"metadata.name={self._node}",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        if self._version is None:
            parameters |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        else:
            parameters |= {"resourceVersion": self._version}
        initial, found = self._version is None, False
        timeout = httpx2.Timeout(30.0, read=self._stall)
        # each event of a compressed watch is a gzip member of its own, and the client stops after the first one
        headers = {**self._headers(), "Accept-Encoding": "identity"}
        request = self._client.stream("GET", _EDGE_NODES, params=parameters, headers=headers, timeout=timeout)
        async with request as answer:
            if answer.status_code == httpx2.codes.GONE:
                raise _Expired
            if answer.status_code != httpx2.codes.OK:
                raise KubeError(await _complaint(answer), answer.status_code)
            async for line in answer.aiter_lines():
                event = json.loads(line)
                kind, item = event["type"], event["object"]
                if kind == "ERROR":
                    if item.get("code") == httpx2.codes.GONE:
                        raise _Expired
                    raise KubeError(str(item.get("message")), int(item.get("code", 0)))
                self._version = item["metadata"]["resourceVersion"]
                if kind == "BOOKMARK":
                    ended = (item["metadata"].get("annotations") or {}).get(_INITIAL_END) == "true"
                    if ended and initial and not found:
                        yield Seen(None)
                    continue
                found = True
                yield Seen(None if kind == "DELETED" else item)

    async def patch_status(self, status: Mapping[str, Any]) -> None:
        """Merge these fields into the EdgeNode's status.

        Raises:
            KubeError: refused or unreachable.
        """
        await self._send("PATCH", f"{_EDGE_NODES}/{self._node}/status", {"status": status}, {**_MERGE, **_SLIM})

    async def renew_lease(self, now: datetime) -> None:
        """Say that the node lives. The Lease is created where there is none.

        Raises:
            KubeError: refused or unreachable.
        """
        stamp = micro_time(now)
        body = {"spec": {"renewTime": stamp}}
        try:
            await self._send("PATCH", f"{_LEASES}/{self._node}", body, {**_MERGE, **_SLIM})
        except KubeError as error:
            if error.status != httpx2.codes.NOT_FOUND:
                raise
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._node, "namespace": names.NAMESPACE},
                "spec": {
                    "holderIdentity": self._node,
                    "leaseDurationSeconds": 3 * names.HEARTBEAT_SECONDS,
                    "renewTime": stamp,
                },
            }
            await self._send("POST", _LEASES, lease, {"Content-Type": "application/json"})

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object or ask a subresource; what the API server answers.

        Raises:
            KubeError: refused or unreachable, or no JSON object came.
        """
        answer = await self._send("POST", path, body, {"Content-Type": "application/json"})
        try:
            return dict(json.loads(answer.content))
        except (ValueError, TypeError) as error:
            raise KubeError(f"POST {path}: {error}") from None

    async def _send(
        self, method: str, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> httpx2.Response:
        try:
            answer = await self._client.request(
                method,
                path,
                params={"fieldManager": "edgewright-agent"},
                content=json.dumps(body).encode(),
                headers={**self._headers(), **headers},
            )
        except (httpx2.HTTPError, OSError) as error:
            raise KubeError(f"{method} {path}: {type(error).__name__}: {error}") from None
        if answer.is_error:
            raise KubeError(f"{method} {path}: {await _complaint(answer)}", answer.status_code)
        return answer

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token()}"}


async def _complaint(answer: httpx2.Response) -> str:
    body = (await answer.aread())[:4096]
    try:
        message = json.loads(body).get("message")
    except (ValueError, AttributeError):
        message = body.decode("utf-8", "replace")[:200]
    return f"{answer.status_code} {message}"
