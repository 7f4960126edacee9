"""The supervisor's door: a Unix socket, mode 0600, one JSON object a line each way."""

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import msgspec

from edgewright_agent import disk
from edgewright_agent.serving import engine, local_socket, rehearsal, stated
from edgewright_agent.serving.history import History
from edgewright_agent.serving.metrics import Metrics
from edgewright_agent.serving.slots import Loaded, Slots, rss_bytes
from edgewright_contract import names

log = logging.getLogger(__name__)


class Load(msgspec.Struct, tag="load", tag_field="op"):
    """Load these bytes beside what is live."""

    model: str
    manifest: str
    version: int
    variant: str
    path: str
    digest: str
    release: str
    slot: str = "shadow"


class Promote(msgspec.Struct, tag="promote", tag_field="op"):
    """Serve what was loaded under this manifest."""

    model: str
    manifest: str


class Rehearse(msgspec.Struct, tag="rehearse", tag_field="op"):
    """Run this node's own readings through what was loaded under this manifest and through what is live."""

    model: str
    manifest: str
    seconds: float


class Discard(msgspec.Struct, tag="discard", tag_field="op"):
    """Forget what was loaded beside the live model."""

    model: str


class Serve(msgspec.Struct, tag="serve", tag_field="op"):
    """Everything that should serve is loaded: take requests from now on."""


class Unload(msgspec.Struct, tag="unload", tag_field="op"):
    """Forget the model."""

    model: str


class AskFigures(msgspec.Struct, tag="figures", tag_field="op"):
    """What was measured."""


class Ping(msgspec.Struct, tag="ping", tag_field="op"):
    """A sign of life of the event loop."""


_decoder = msgspec.json.Decoder(Load | Promote | Rehearse | Discard | Serve | Unload | AskFigures | Ping)


class Control:
    """Answers the supervisor's lines."""

    def __init__(self, slots: Slots, metrics: Metrics, history: History | None = None) -> None:
        self._slots, self._metrics, self._history = slots, metrics, history
        self._rss_before = 0
        """Of this process before the newest model was loaded."""
        self.serve = asyncio.Event()
        """Set when the supervisor says that all is loaded."""

    async def listen(self, path: Path) -> asyncio.Server:
        """Open the socket; one left by an earlier process is replaced."""
        with local_socket.place_for(path, 0o600):
            return await asyncio.start_unix_server(self._serve, path=path, limit=64 * 1024)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(msgspec.json.encode(await self.answer(line)) + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError) as error:  # ValueError: a line beyond the limit
            log.warning("The control connection ended: %s", error)
        finally:
            writer.close()

    async def answer(self, line: bytes) -> dict[str, Any]:
        """Do what the line says; never raises for what it holds."""
        try:
            request = _decoder.decode(line)
            match request:
                case Load():
                    await self._load(request)
                case Promote():
                    self._slots.promote(request.model, request.manifest)
                case Rehearse():
                    return {"ok": True, **await self._rehearse(request)}
                case Discard():
                    self._slots.discard(request.model)
                case Unload():
                    self._slots.unload(request.model)
                case Serve():
                    self.serve.set()
                case AskFigures():
                    return {"ok": True, "models": self._figures()}
        except (engine.EngineError, msgspec.MsgspecError, stated.BadDocument, OSError) as error:
            return {"ok": False, "error": str(error)}
        except Exception as error:
            log.exception("A control request failed.")
            return {"ok": False, "error": f"{type(error).__name__}: {str(error)[:300]}"}
        return {"ok": True}

    async def _load(self, request: Load) -> None:
        if request.slot != "shadow":
            raise engine.EngineError(f"slot {request.slot!r} is unknown; load into shadow and promote.")
        self._rss_before = rss_bytes()
        try:
            model = await asyncio.to_thread(_read_and_load, request)
        except Exception:
            self._metrics.selftest_failures.inc()
            raise
        self._slots.put_shadow(request.model, model)

    async def _rehearse(self, request: Rehearse) -> dict[str, Any]:
        new = self._slots.loaded_beside(request.model, request.manifest)
        old, found = self._slots.live.get(new.name), rehearsal.Evidence()
        if self._history is not None:
            watts = await asyncio.to_thread(self._history.dense)
            found = await rehearsal.rehearse(new, old, watts, request.seconds)
        evidence = found.to_json()
        if old is not None:
            evidence["previousRssBytes"] = self._rss_before
            if not evidence["previousP95Microseconds"] and old.figures.samples >= rehearsal.MIN_TIMED:
                evidence["previousP95Microseconds"] = old.figures.to_json()["p95Microseconds"]
        return evidence

    def _figures(self) -> dict[str, dict[str, object]]:
        """By full name: the shadow's figures while there is one, else the live model's."""
        chosen = {**self._slots.live, **self._slots.shadow}
        return {item.full_name: _told(item) for item in chosen.values()}


def _told(loaded: Loaded) -> dict[str, object]:
    figures = loaded.figures
    counted = {"compared": figures.compared, "agreed": figures.agreed}
    return {**figures.to_json(), **counted, "manifest": loaded.model.manifest, "variant": loaded.model.variant}


def _read_and_load(request: Load) -> engine.Model:
    release = stated.read(_read(Path(request.release), names.MAX_RELEASE_BYTES))
    if release.version != request.version:
        raise engine.EngineError(f"release.json is version {release.version}, not {request.version}.")
    data = _read(Path(request.path), names.MAX_MODEL_BYTES)
    return engine.load(data, request.digest, release, request.variant, request.manifest)


def _read(path: Path, limit: int) -> bytes:
    descriptor = disk.open_plain(disk.FileOps(), path, disk.READ)  # never waits on a pipe, never follows a link
    try:
        data = disk.read_all(descriptor, limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise engine.EngineError(f"{path.name} is larger than {limit} bytes.")
    return data
