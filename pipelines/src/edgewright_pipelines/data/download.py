"""Inside fetch: brings one file over a bad network; resumes where it stopped, and starts anew when the file changed."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from edgewright_pipelines.data.report import Progress, Reporter

MAX_BYTES = 4 << 30
ATTEMPTS = 6  # in a row without one new byte
_WORTH_RETRYING = frozenset({408, 425, 429, 500, 502, 503, 504})


class FetchError(RuntimeError):
    """Data that could not be fetched; the text says what happened, what is kept and what to do."""


@dataclass(frozen=True, slots=True)
class Partial:
    """A download in its folder: the bytes so far, and what identifies the version of the file they belong to."""

    folder: Path

    @property
    def data(self) -> Path:
        """The bytes so far."""
        return self.folder / "archive.partial"

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.data.stat().st_size if self.data.exists() else 0

    def validator(self, url: str) -> str | None:
        """What `If-Range` sends: the strong ETag under which the bytes came, or None when they cannot be continued."""
        try:
            state = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
            return str(state["etag"]) if state["url"] == url and state["etag"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def restart(self, url: str, etag: str | None) -> None:
        """Forget the bytes, remember the version that comes now."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data.write_bytes(b"")
        (self.folder / "state.json").write_text(json.dumps({"url": url, "etag": etag}), encoding="utf-8")

    def remove(self) -> None:
        """Leave nothing behind."""
        for name in ("archive.partial", "state.json"):
            (self.folder / name).unlink(missing_ok=True)
        if self.folder.exists():
            self.folder.rmdir()


def download(
    url: str,
    partial: Partial,
    client: httpx2.Client,
    report: Reporter,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Bring `url` whole into `partial`. Raises FetchError when the server refuses or six tries bring nothing new."""
    failures, best = 0, partial.size
    while True:
        try:
            _one_request(url, partial, client, report)
            return
        except (httpx2.TransportError, _TryAgain) as error:
            failures = 0 if partial.size > best else failures + 1
            best = max(best, partial.size)
            if failures >= ATTEMPTS:
                raise FetchError(
                    f"{url} did not arrive: {failures} tries in a row brought nothing new (last: {_reason(error)})."
                    f" The {partial.size:,} bytes so far are kept; run the same command again to go on from there."
                ) from error
            pause(min(30.0, 0.5 * 2**failures))


class _TryAgain(Exception):
    """An answer that a later request may not get."""


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _one_request(url: str, partial: Partial, client: httpx2.Client, report: Reporter) -> None:
    validator = partial.validator(url)
    start = partial.size if validator else 0
    headers = {"Accept-Encoding": "identity"}
    if start and validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    with _stream(client, url, headers) as response:
        if response.status_code == 416 and response.headers.get("Content-Range") == f"bytes */{start}":
            return  # everything had arrived before the last stop
        if response.status_code == 416 or (response.status_code == 206 and _first_byte(response) != start):
            partial.restart(url, None)
            raise _TryAgain(f"the server could not continue at byte {start:,}")
        if response.status_code == 200:
            start = 0
            partial.restart(url, _strong_etag(response))
        _append(response, partial, start, report)


@contextmanager
def _stream(client: httpx2.Client, url: str, headers: dict[str, str]) -> Iterator[httpx2.Response]:
    try:
        with client.stream("GET", url, headers=headers, follow_redirects=True) as response:
            if response.status_code in _WORTH_RETRYING:
                raise _TryAgain(f"the server answered {response.status_code}")
            if response.status_code not in (200, 206, 416):
                raise FetchError(f"{url} answered {response.status_code} {response.reason_phrase}; check the address.")
            yield response
    except httpx2.TooManyRedirects:
        raise FetchError(f"{url} redirects without end; check the address.") from None
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise FetchError(
            f"{url} is not an address that can be fetched ({error}); it must start with https://."
        ) from None


def _append(response: httpx2.Response, partial: Partial, start: int, report: Reporter) -> None:
    length = response.headers.get("Content-Length", "")
    total = start + int(length) if length.isdigit() else 0
    if total > MAX_BYTES:
        raise FetchError(f"{response.url} is {total:,} bytes long, more than the {MAX_BYTES:,} that the data can be.")
    with partial.data.open("r+b") as file:
        file.seek(start)
        for chunk in response.iter_raw():  # as it comes: a chunk size would hold bytes back, and lose them in a cut
            file.write(chunk)
            file.flush()
            if file.tell() > MAX_BYTES:
                raise FetchError(f"{response.url} sends more than the {MAX_BYTES:,} bytes that the data can be.")
            report(Progress("fetch data", file.tell(), total))


def _strong_etag(response: httpx2.Response) -> str | None:
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else None  # a weak one allows other bytes, so a range could be of another file


def _first_byte(response: httpx2.Response) -> int:
    """Where a 206 answer starts; -1 if it does not say so."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else -1
