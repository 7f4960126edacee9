"""The HTTP routes: Open Inference Protocol v2, readings, health, metrics, the live page and its snapshot."""

import asyncio
import logging
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from edgewright_agent.serving import page, protocol_v2, push
from edgewright_agent.serving.live import Live
from edgewright_agent.serving.metrics import Metrics
from edgewright_agent.serving.slots import Loaded, NoFiniteAnswer, Slots

log = logging.getLogger(__name__)
VERSION: Final = "0.1.0"
CLOCK_SECONDS: Final = 3600
"""A meter's clock may be so far ahead of the node's."""


@dataclass(frozen=True)
class Limits:
    """Bounds that keep one client from taking the node."""

    body_bytes: int = 1024 * 1024
    concurrency: int = 16
    """Requests that may be in work at once; more get 503."""
    body_seconds: float = 10.0


class Routes:
    """Handlers around the models and the live window."""

    def __init__(self, slots: Slots, live: Live, metrics: Metrics, limits: Limits) -> None:
        self._slots, self._live, self._metrics, self._limits = slots, live, metrics, limits
        self._busy = 0

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/", self._page),
            Route("/healthz", self._alive),
            Route("/readyz", self._ready),
            Route("/metrics", self._metrics_text),
            Route("/v1/snapshot", self._snapshot),
            Route("/v1/readings", self._readings, methods=["POST"]),
            Route("/v2", self._server),
            Route("/v2/health/live", self._alive),
            Route("/v2/health/ready", self._ready),
        ]
        for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            routes += [
                Route(model, self._model),
                Route(model + "/ready", self._model_ready),
                Route(model + "/infer", self._infer, methods=["POST"]),
            ]
        refusals: dict[Any, Any] = {HTTPException: _refuse, Exception: _failed}
        return Starlette(routes=routes, exception_handlers=refusals)

    async def _alive(self, _: Request) -> Response:
        return _json({"live": True})

    async def _ready(self, _: Request) -> Response:
        return _json({"ready": bool(self._slots.live)}, 200 if self._slots.live else 503)

    async def _server(self, _: Request) -> Response:
        return _json({"name": "edgewright-agent", "version": VERSION, "extensions": ["binary_tensor_data"]})

    async def _metrics_text(self, _: Request) -> Response:
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def _page(self, _: Request) -> Response:
        return Response(page.HTML, media_type="text/html; charset=utf-8", headers=page.HEADERS)

    async def _snapshot(self, _: Request) -> Response:
        live = self._live
        rows = [
            {"name": item.name, "version": item.model.version, "variant": item.model.variant, "state": state}
            for state, slot in (("Live", self._slots.live), ("Shadow", self._slots.shadow))
            for item in slot.values()
        ]
        now = {name: asdict(value) for name, value in live.snapshots.items() if name in self._slots.live}
        watts = [[reading.t, reading.watts] for reading in live.recent]
        body = {"models": rows, "snapshots": now, "readings": watts, "energyTodayJoules": live.energy_today}
        return _json(body, headers={"cache-control": "no-store"})

    async def _model(self, request: Request) -> Response:
        found = self._find(request)
        return _json(protocol_v2.model_metadata(found.name, found.model))

    async def _model_ready(self, request: Request) -> Response:
        found = self._find(request)
        return _json({"name": found.name, "ready": True, "model_version": str(found.model.version)})

    async def _infer(self, request: Request) -> Response:
        self._find(request)
        body = await self._body(request)
        with _Turn(self):
            found = self._find(request)  # again: a swap may have come while the body arrived
            try:
                asked = protocol_v2.parse(body, request.headers.get(protocol_v2.HEADER), found.model.window.seconds)
                answer = await self._slots.infer(found, asked.watts)
            except (protocol_v2.BadRequest, NoFiniteAnswer) as error:
                raise HTTPException(400, str(error)) from None
        content, header = protocol_v2.encode(found.name, found.model, asked, answer)
        if header is None:
            return Response(content, media_type="application/json")
        return Response(content, media_type="application/octet-stream", headers={protocol_v2.HEADER: str(header)})

    async def _readings(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("application/json", "application/x-ndjson"):  # so no foreign web page can post readings
            raise HTTPException(415, "Send the readings as application/json or application/x-ndjson.")
        body = await self._body(request)
        with _Turn(self):
            try:
                taken = push.parse(body, lines=kind == "application/x-ndjson", latest=time.time() + CLOCK_SECONDS)
            except push.BadReadings as error:
                raise HTTPException(400, str(error)) from None
            return _json({"taken": await self._live.take(taken)})

    def _find(self, request: Request) -> Loaded:
        name, version = request.path_params["name"], request.path_params.get("version")
        found = self._slots.live.get(name)
        if found is None:
            raise HTTPException(404, f"No model {name[:80]!r} is live here; GET /v1/snapshot lists them.")
        if version is not None and version != str(found.model.version):
            raise HTTPException(404, f"Model {name} is live in version {found.model.version}, not {version[:20]!r}.")
        return found

    async def _body(self, request: Request) -> bytes:
        """The whole body within size and time; what is too large is refused before it is held."""
        if request.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "Compressed bodies are not supported; send it as it is.")
        limit = self._limits.body_bytes
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                if int(request.headers.get("content-length", "0")) > limit:
                    raise HTTPException(413, f"The body may have at most {limit} bytes; send fewer windows.")
                async for part in request.stream():
                    size += len(part)
                    if size > limit:
                        raise HTTPException(413, f"The body may have at most {limit} bytes; send fewer windows.")
                    parts.append(part)
        except TimeoutError:
            raise HTTPException(408, f"The body took longer than {self._limits.body_seconds:g} s.") from None
        except ClientDisconnect:
            raise HTTPException(400, "The connection ended within the body.") from None
        return b"".join(parts)


class _Turn:
    """One of the bounded places for requests in work."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes

    def __enter__(self) -> None:
        if self._routes._busy >= self._routes._limits.concurrency:
            raise HTTPException(503, "Too many requests are in work; try again in a second.", {"Retry-After": "1"})
        self._routes._busy += 1

    def __exit__(self, *_: object) -> None:
        self._routes._busy -= 1


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, "application/json")


async def _refuse(_: Request, error: HTTPException) -> Response:
    headers = dict(error.headers or {})
    if error.status_code in (408, 413):
        headers["connection"] = "close"  # the rest of the body is not worth reading
    return _json({"error": error.detail}, error.status_code, headers)


async def _failed(_: Request, error: Exception) -> Response:
    log.error("A request failed: %s", error)
    return _json({"error": "The engine failed on this request; the node's log has the reason."}, 500)
