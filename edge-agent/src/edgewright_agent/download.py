"""One blob from the gateway into the store: resumes by Range, stops at the signed size, follows no redirect."""

import asyncio
import os
import re
import time
from collections.abc import Callable
from typing import Final

import httpx2

from edgewright_agent import disk
from edgewright_agent.refusal import Delay
from edgewright_agent.store import BlobError, Store
from edgewright_contract.conditions import Reason

_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")
MIN_BYTES_A_SECOND: Final = 64
"""A gateway that stays below this over a whole grace time counts as dead."""
GRACE_SECONDS: Final = 30.0


class Gateway:
    """The model gateway as a source of blobs. `token` is asked for every request, because tokens are renewed."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        token: Callable[[], str],
        *,
        deadline: float,
        min_free_bytes: int,
        clock: Callable[[], float] = time.monotonic,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._client = client
        self._token = token
        self._deadline = deadline
        self._min_free = min_free_bytes
        self._clock = clock
        self._grace = grace_seconds

    async def fetch(self, store: Store, digest: str, limit: int) -> None:
        """Have the blob in the store; at most `limit` bytes of it are taken.

        Raises:
            Delay: DownloadFailed, NeedsJoin or InsufficientStorage; what arrived is kept for the next attempt.
            OSError: the disk refuses.
        """
        if store.has(digest, limit):
            return
        try:
            free, needed = store.free_bytes(), limit + self._min_free
            if free < needed:
                raise Delay(Reason.INSUFFICIENT_STORAGE, f"{free} bytes free, {needed} needed")
            async with asyncio.timeout(self._deadline):
                await self._fetch(store, digest, limit)
            store.adopt_part(digest, limit)
        except TimeoutError:
            raise Delay(Reason.DOWNLOAD_FAILED, f"{digest}: not here after {self._deadline:g} s") from None
        except httpx2.HTTPError as error:
            raise Delay(Reason.DOWNLOAD_FAILED, f"{digest}: {type(error).__name__}: {error}") from None
        except BlobError as error:
            raise Delay(Reason.DOWNLOAD_FAILED, str(error)) from None

    async def _fetch(self, store: Store, digest: str, limit: int) -> None:
        try:
            token = self._token()
        except OSError as error:
            raise Delay(Reason.NEEDS_JOIN, f"the gateway's token cannot be read: {error.strerror}") from None
        part = store.open_part(digest)
        try:
            have = os.fstat(part).st_size
            if have < limit:  # else complete or rubbish: adopt_part decides
                await self._receive(store, part, have, digest, limit, token)
        finally:
            os.close(part)

    async def _receive(self, store: Store, part: int, have: int, digest: str, limit: int, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        path = f"/blobs/sha256/{digest.removeprefix('sha256:')}"
        async with self._client.stream("GET", path, headers=headers, follow_redirects=False) as answer:
            if answer.status_code == httpx2.codes.RANGE_NOT_SATISFIABLE:
                return
            if answer.status_code == httpx2.codes.PARTIAL_CONTENT and not _begins_at(answer, have):
                store.ops.truncate(part, 0)  # another part than asked for: begin anew
                raise Delay(Reason.DOWNLOAD_FAILED, f"{digest}: the gateway sent another part than asked for")
            if answer.status_code == httpx2.codes.OK and have:
                store.ops.truncate(part, 0)  # the whole file, not the rest
                have = 0
            elif answer.status_code not in (httpx2.codes.OK, httpx2.codes.PARTIAL_CONTENT):
                unknown = answer.status_code == httpx2.codes.UNAUTHORIZED
                reason = Reason.NEEDS_JOIN if unknown else Reason.DOWNLOAD_FAILED
                raise Delay(reason, f"{digest}: the gateway answered {answer.status_code}")
            began, size = self._clock(), have
            async for chunk in answer.aiter_raw():
                size += len(chunk)
                if size > limit:  # the gateway's fault, not the release's: it is asked again, from the start
                    store.ops.truncate(part, 0)
                    raise Delay(Reason.DOWNLOAD_FAILED, f"{digest}: more than the {limit} bytes that may be taken")
                disk.write_all(store.ops, part, chunk)
                waited = self._clock() - began
                if waited > self._grace and size - have < MIN_BYTES_A_SECOND * waited:
                    raise Delay(Reason.DOWNLOAD_FAILED, f"{digest}: {size - have} bytes in {waited:.0f} s is too slow")


def _begins_at(answer: httpx2.Response, have: int) -> bool:
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    return match is not None and int(match[1]) == have
