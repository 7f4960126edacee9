"""The operator's one door to the API server: the `kubernetes` asyncio client with raw JSON bodies.

Every request passes here: it is paced in times of trouble, counted, and, if it writes, fenced by the Lease.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import ApiClient

from edgewright_operator.pacing import Pacing
from edgewright_operator.requests_made import REQUESTS

Object = dict[str, Any]

REQUEST_SECONDS: Final = 30.0
_NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError)
_SHORT: Final = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
_ENDLESS: Final = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_SECONDS)
_BUSY: Final = frozenset({401, 408, 429, 500, 502, 503, 504})  # 401: a token that is just being replaced


class Body(StrEnum):
    """Content types of what is sent."""

    JSON = "application/json"
    MERGE = "application/merge-patch+json"


class ClusterError(RuntimeError):
    """The API server did not do what was asked; the next round tries again from fresh reads."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Conflict(ClusterError):
    """Somebody else wrote first: what was decided is out of date."""


class Unavailable(ClusterError):
    """No answer, or one that says: not now."""


class NotLeading(ClusterError):
    """The Lease is not surely ours any more, so nothing was sent."""


class Api:
    """`may_write` is asked in the last step before a write is handed to the connection."""

    def __init__(self, client: ApiClient, pacing: Pacing, may_write: Callable[[], bool]) -> None:
        self._configuration = client.configuration
        self._rest: Any = client.rest_client  # it has no types
        self._pacing = pacing
        self._may_write = may_write

    async def read(self, path: str, *, accept: str = Body.JSON, **query: str) -> bytes:
        """GET; the answer's bytes.

        Raises:
            ClusterError
        """
        return await self._send("GET", path, query, None, {"Accept": accept}, fenced=False)

    async def write(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        content: Body = Body.JSON,
        accept: str = Body.JSON,
        query: Mapping[str, str] | None = None,
        fenced: bool = True,
    ) -> bytes:
        """POST, PUT, PATCH or DELETE; fenced unless it is the write that the fence itself rests on.

        Cancelled while the request is under way, it ends once that is answered (docs/decisions/0052).

        Raises:
            ClusterError, NotLeading
        """
        headers = {"Accept": accept, "Content-Type": content.value}
        return await self._send(method, path, query or {}, body, headers, fenced=fenced)

    @asynccontextmanager
    async def stream(self, path: str, query: Mapping[str, str], accept: str) -> AsyncIterator[aiohttp.StreamReader]:
        """A watch: the answer's body, to be read line by line.

        Raises:
            ClusterError: the watch did not begin.
        """
        answer = await self._request("GET", path, query, None, {"Accept": accept}, _ENDLESS, fenced=False)
        try:
            if answer.status >= 400:
                raise _refusal("watch", path, answer, await answer.read())
            yield answer.response.content
        finally:
            answer.response.close()

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None,
        headers: dict[str, str],
        *,
        fenced: bool,
    ) -> bytes:
        answer = await self._request(method, path, query, body, headers, _SHORT, fenced=fenced)
        try:
            data: bytes = await answer.read()
        except _NO_ANSWER as error:
            raise self._unanswered(method, path, error) from None
        if answer.status >= 400:
            raise _refusal(method, path, answer, data)
        return data

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None,
        headers: dict[str, str],
        limits: aiohttp.ClientTimeout,
        *,
        fenced: bool,
    ) -> Any:
        await self._pacing.turn()
        configuration = self._configuration
        if token := await configuration.get_api_key_with_prefix("BearerToken"):
            headers["Authorization"] = token
        headers["Accept-Encoding"] = "identity"  # packing a list costs both sides more than loopback or a LAN does
        url = f"{configuration.host}{path}?{urlencode(query)}" if query else f"{configuration.host}{path}"
        if fenced and not self._may_write():
            raise NotLeading(f"{method} {path}: not sent, because the Lease is not surely ours")
        try:
            request = self._rest.request(method, url, headers=headers, body=body, _request_timeout=limits)
            answer = await (request if method == "GET" else _seen_through(request))
        except _NO_ANSWER as error:
            raise self._unanswered(method, path, error) from None
        busy = answer.status in _BUSY
        self._pacing.heard(busy=busy, retry_after=answer.headers.get("Retry-After") if busy else None)
        REQUESTS.labels("ok" if answer.status < 400 else "refused").inc()
        return answer

    def _unanswered(self, method: str, path: str, error: BaseException) -> Unavailable:
        self._pacing.heard(busy=True)
        REQUESTS.labels("unanswered").inc()
        return Unavailable(f"{method} {path}: {type(error).__name__}: {error}")


async def _seen_through(request: Coroutine[Any, Any, Any]) -> Any:
    """The answer to a write. Whoever is cancelled meanwhile waits for it first: until then it may still land."""
    sent = asyncio.ensure_future(request)
    try:
        return await asyncio.shield(sent)
    except asyncio.CancelledError:
        await asyncio.gather(sent, return_exceptions=True)
        raise


def _refusal(method: str, path: str, answer: Any, data: bytes) -> ClusterError:
    try:
        message = str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        message = data[:200].decode(errors="replace")
    text = f"{method} {path}: {answer.status} {message}"
    if answer.status == 409:
        return Conflict(text, 409)
    return (Unavailable if answer.status in _BUSY else ClusterError)(text, answer.status)
