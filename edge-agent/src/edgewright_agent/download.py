"""One blob from the gateway into the store: resumes by Range, stops at the signed size, follows no redirect."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import httpx2

from edgewright_agent.refusal import Delay, Refusal
from edgewright_agent.store import BlobError, Store
from edgewright_contract.conditions import Reason

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class Gateway:
    """The model gateway as a source of blobs. `token` is asked for every request, because tokens are renewed."""

    def __init__(
        self, client: httpx2.AsyncClient, token: Callable[[], str], *, deadline: float, min_free_bytes: int
    ) -> None:
        self._client = client
        self._token = token
        self._deadline = deadline
        self._min_free = min_free_bytes

    async def fetch(self, store: Store, digest: str, limit: int) -> None:
        """Have the blob in the store; at most `limit` bytes of it are taken.

        Raises:
            Delay: DownloadFailed or InsufficientStorage; what arrived is kept for the next attempt.
            Refusal: BadDigest, more bytes than signed.
        """
        if store.has(digest, limit):
            return
        free, needed = store.free_bytes(), limit + self._min_free
        if free < needed:
            raise Delay(Reason.INSUFFICIENT_STORAGE, f"{free} bytes free, {needed} needed")
        try:
            async with asyncio.timeout(self._deadline):
                await self._fetch(store.part(digest), digest, limit)
            store.adopt_part(digest, limit)
        except TimeoutError:
            raise Delay(Reason.DOWNLOAD_FAILED, f"{digest}: not here after {self._deadline:g} s") from None
        except httpx2.HTTPError as error:
            raise Delay(Reason.DOWNLOAD_FAILED, f"{digest}: {type(error).__name__}: {error}") from None
        except BlobError as error:
            raise Delay(Reason.DOWNLOAD_FAILED, str(error)) from None
        except OSError as error:
            raise Delay(Reason.STORAGE_ERROR, f"{digest}: {error.strerror}") from None

    async def _fetch(self, part: Path, digest: str, limit: int) -> None:
        have = _size(part)
        if have >= limit:  # complete or rubbish: adopt_part decides
            return
        headers = {"Authorization": f"Bearer {self._token()}", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        path = f"/blobs/sha256/{digest.removeprefix('sha256:')}"
        async with self._client.stream("GET", path, headers=headers, follow_redirects=False) as answer:
            if answer.status_code == httpx2.codes.RANGE_NOT_SATISFIABLE:
                return
            resumed = answer.status_code == httpx2.codes.PARTIAL_CONTENT and _begins_at(answer, have)
            if not resumed and answer.status_code != httpx2.codes.OK:
                if answer.status_code == httpx2.codes.PARTIAL_CONTENT:  # another part than asked for: begin anew
                    _forget(part)
                raise Delay(Reason.DOWNLOAD_FAILED, f"{digest}: the gateway answered {answer.status_code}")
            with part.open("ab" if resumed else "wb") as file:
                size = have if resumed else 0
                async for chunk in answer.aiter_raw():
                    size += len(chunk)
                    if size > limit:
                        file.truncate(0)
                        raise Refusal(Reason.BAD_DIGEST, f"{digest}: more than the {limit} bytes that may be taken")
                    file.write(chunk)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)


def _begins_at(answer: httpx2.Response, have: int) -> bool:
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    return match is not None and int(match[1]) == have
