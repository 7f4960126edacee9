"""One kind of object, mirrored: a list in pages, then a watch from there; drops, 410, stalls and resync are normal.

Every change goes to `changed`; whoever listens looks at what is there now, never at what the event said.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

import aiohttp
import msgspec
import structlog

from edgewright_operator.api import Api, Body, ClusterError, Unavailable
from edgewright_operator.pacing import Backoff

log = structlog.get_logger()

PAGE: Final = 500
STALL_SECONDS: Final = 70.0
"""A bookmark comes each minute; a watch that is silent for longer is dead."""
_GONE: Final = 410
_METADATA: Final = "application/json;as={kind};g=meta.k8s.io;v=v1"


class Named(Protocol):
    """What a view must have."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def version(self) -> str: ...  # noqa: D102


V = TypeVar("V", bound=Named)


class _ListMetadata(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    metadata: _ListMetadata
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _MarkMetadata(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _Mark(msgspec.Struct):
    metadata: _MarkMetadata


class _Problem(msgspec.Struct):
    code: int = 0
    message: str = ""


_page = msgspec.json.Decoder(_Page)
_event = msgspec.json.Decoder(_Event)
_mark = msgspec.json.Decoder(_Mark)
_problem = msgspec.json.Decoder(_Problem)


class Expired(Exception):
    """The version to watch from is too old: list anew."""


def newer(version: str, than: str) -> bool:
    """Whether a resourceVersion is the later one (comparable since Kubernetes 1.35, KEP-5504)."""
    return (len(version), version) > (len(than), than)


@dataclass(slots=True)
class Watched(Generic[V]):
    """`items` by name. `view` turns an object's JSON into what is kept of it; `metadata_only` asks for no more."""

    api: Api
    path: str
    view: Callable[[msgspec.Raw], V]
    changed: Callable[[str, V | None, V | None], None]
    query: Mapping[str, str] = field(default_factory=dict)
    metadata_only: bool = False
    resync_seconds: float = 600.0
    stall_seconds: float = STALL_SECONDS
    clock: Callable[[], float] = time.monotonic
    items: dict[str, V] = field(default_factory=dict)
    synced: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """List and watch for ever; no trouble of the API server ends it."""
        backoff = Backoff()
        while True:
            try:
                version = await self._listed()
                await self._follow(version, self.clock() + self.resync_seconds * random.uniform(0.8, 1.2), backoff)  # noqa: S311
            except Expired:
                log.info("watch too old, listing anew", path=self.path)
            except (ClusterError, msgspec.MsgspecError) as error:
                log.warning("list or watch failed", path=self.path, error=str(error))
                await asyncio.sleep(backoff.failed())

    def put(self, view: V) -> None:
        """What a write answered, so that the next decision sees it; the watch may be behind or ahead."""
        if view.name in self.items:
            self._seen(view)

    def drop(self, name: str) -> None:
        """An object that turned out to be gone."""
        before = self.items.pop(name, None)
        if before is not None:
            self.changed(name, before, None)

    async def _listed(self) -> str:
        """Read all pages and replace what is known by them; the version to watch from."""
        found: dict[str, V] = {}
        query, version = {"limit": str(PAGE), **self.query}, ""
        while True:
            page = _page.decode(await self.api.read(self.path, accept=self._accept("List"), **query))
            for raw in page.items or []:
                view = self.view(raw)
                found[view.name] = view
            version = page.metadata.resource_version
            if not page.metadata.continue_:
                break
            query["continue"] = page.metadata.continue_
        self._replace(found)
        self.synced.set()
        return version

    def _replace(self, found: dict[str, V]) -> None:
        for name in [name for name in self.items if name not in found]:
            self.drop(name)
        for view in found.values():
            self._seen(view)

    def _seen(self, view: V) -> None:
        """A version of an object, possibly an old one."""
        before = self.items.get(view.name)
        if before is None or newer(view.version, before.version):
            self.items[view.name] = view
            self.changed(view.name, before, view)

    async def _follow(self, version: str, until: float, backoff: Backoff) -> None:
        """Watch from `version`, reconnecting, until it is time to list anew."""
        while self.clock() < until:
            before = version
            try:
                version = await self._watched(version, until)
                backoff.worked()
            except _Broken as broken:
                version = broken.version
                log.info("watch broke, going on from where it was", path=self.path, why=str(broken))
            if version == before:  # an end without one event: not at once again
                await asyncio.sleep(backoff.failed())

    async def _watched(self, version: str, until: float) -> str:
        seconds = str(max(1, int(min(300.0 * random.uniform(0.8, 1.0), until - self.clock()))))  # noqa: S311
        query = {**self.query, "watch": "true", "allowWatchBookmarks": "true"}
        query |= {"resourceVersion": version, "timeoutSeconds": seconds}
        try:
            async with self.api.stream(self.path, query, self._accept("")) as lines:
                while True:
                    async with asyncio.timeout(self.stall_seconds):
                        line = await lines.readline()
                    if not line.endswith(b"\n"):  # the end, or a line that the end cut off
                        return version
                    version = self._take(line) or version
        except ClusterError as error:
            if error.status == _GONE:
                raise Expired from None
            if isinstance(error, Unavailable):
                raise _Broken(str(error), version) from None
            raise
        except (msgspec.MsgspecError, ValueError) as error:  # a line that we cannot take: see what is there now
            log.warning("unreadable watch event", path=self.path, error=str(error))
            raise Expired from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _Broken(f"{type(error).__name__}: {error}", version) from None

    def _take(self, line: bytes) -> str:
        """One event; the version that it brings us to."""
        event = _event.decode(line)
        if event.type == "ERROR":
            problem = _problem.decode(event.object)
            if problem.code == _GONE:
                raise Expired
            raise Unavailable(f"watch {self.path}: {problem.code} {problem.message}", problem.code)
        if event.type == "BOOKMARK":
            return _mark.decode(event.object).metadata.resource_version
        view = self.view(event.object)
        if event.type == "DELETED":
            before = self.items.get(view.name)
            if before is not None and not newer(before.version, view.version):
                self.drop(view.name)
        else:
            self._seen(view)
        return view.version

    def _accept(self, suffix: str) -> str:
        return _METADATA.format(kind=f"PartialObjectMetadata{suffix}") if self.metadata_only else Body.JSON


class _Broken(Exception):
    """The stream ended badly; `version` is how far it came."""

    def __init__(self, why: str, version: str) -> None:
        super().__init__(why)
        self.version = version
