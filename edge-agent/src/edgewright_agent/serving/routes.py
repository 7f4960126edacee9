"""The FastAPI application: Open Inference Protocol v2, readings, health, metrics, the live page and its snapshot.

Nearly all infer requests are answered before they come here, in hot_route.py; both ways give the same bytes.
"""

import hmac
import ipaddress
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import orjson
from fastapi import FastAPI, HTTPException, Request, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException as AnyHTTPException

from edgewright_agent.serving import bodies, openapi, page, protocol_v2, push
from edgewright_agent.serving.inference import FAILED, Answer, Inference
from edgewright_agent.serving.live import Live
from edgewright_agent.serving.metrics import Metrics
from edgewright_agent.serving.slots import Loaded
from edgewright_agent.serving.window import CLOCK_SECONDS

log = logging.getLogger(__name__)
VERSION: Final = "0.1.0"


class Routes:
    """Handlers around the models and the live window."""

    def __init__(self, inference: Inference, live: Live, metrics: Metrics, readings_token_file: Path | None) -> None:
        self._inference, self._live, self._metrics = inference, live, metrics
        self._slots, self._limits = inference.slots, inference.limits
        self._readings_token_file = readings_token_file

    def app(self) -> FastAPI:
        """The ASGI application."""
        handlers: dict[Any, Any] = {AnyHTTPException: _refuse, Exception: _failed}
        app = FastAPI(
            title="Edgewright node",
            version=VERSION,
            docs_url=None,  # its page loads scripts from elsewhere
            redoc_url=None,
            redirect_slashes=False,
            exception_handlers=handlers,
            telemetry={"tracing": False, "metrics": False},
        )
        app.get("/", include_in_schema=False)(self._page)
        app.get("/healthz")(_alive)
        app.get("/v2/health/live")(_alive)
        for path in ("/readyz", "/v2/health/ready"):
            app.get(path, responses={503: {"description": "No model is live yet."}})(self._ready)
        app.get("/metrics", response_class=Response)(self._metrics_text)
        app.get("/v1/snapshot")(self._snapshot)
        app.post("/v1/readings", openapi_extra=openapi.READINGS, responses=openapi.refusals(400, 401, 403, 413, 415))(
            self._readings
        )
        app.get("/v2")(_server)
        self._add_model_routes(app)
        return app

    def _add_model_routes(self, app: FastAPI) -> None:
        missing = openapi.refusals(404)
        infer = {**openapi.INFERRED, **openapi.refusals(400, 404, 408, 413, 415, 503)}
        app.get("/v2/models/{name}", responses=missing)(self._model)
        app.get("/v2/models/{name}/versions/{version}", responses=missing)(self._model_version)
        app.get("/v2/models/{name}/ready", responses=missing)(self._model_ready)
        app.get("/v2/models/{name}/versions/{version}/ready", responses=missing)(self._model_version_ready)
        app.post("/v2/models/{name}/infer", responses=infer, openapi_extra=openapi.INFER)(self._infer)
        app.post("/v2/models/{name}/versions/{version}/infer", responses=infer, openapi_extra=openapi.INFER)(
            self._infer_version
        )

    async def _ready(self) -> Response:
        return _json({"ready": bool(self._slots.live)}, 200 if self._slots.live else 503)

    async def _metrics_text(self) -> Response:
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def _page(self) -> Response:
        return Response(page.HTML, media_type="text/html; charset=utf-8", headers=page.HEADERS)

    async def _snapshot(self) -> Response:
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

    async def _model(self, name: str) -> Response:
        return self._metadata(self._find(name))

    async def _model_version(self, name: str, version: str) -> Response:
        return self._metadata(self._find(name, version))

    def _metadata(self, found: Loaded) -> Response:
        return _json(protocol_v2.model_metadata(found.name, found.model))

    async def _model_ready(self, name: str) -> Response:
        return _model_is_ready(self._find(name))

    async def _model_version_ready(self, name: str, version: str) -> Response:
        return _model_is_ready(self._find(name, version))

    async def _infer(self, request: Request, name: str) -> Response:
        return await self._answer(request, name, None)

    async def _infer_version(self, request: Request, name: str, version: str) -> Response:
        return await self._answer(request, name, version)

    async def _answer(self, request: Request, name: str, version: str | None) -> Response:
        self._find(name, version)
        body = await bodies.read(request, self._limits)
        inference, found = self._inference, self._find(name, version)  # again: a swap may have come meanwhile
        if inference.in_work >= self._limits.concurrency:
            return _response(inference.shed(found))
        inference.in_work += 1
        try:
            return _response(await inference.answer(found, body, request.headers.get(protocol_v2.HEADER)))
        finally:
            inference.in_work -= 1

    async def _readings(self, request: Request) -> Response:
        self._check_pusher(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("application/json", "application/x-ndjson"):  # so no foreign web page can post readings
            raise HTTPException(415, "Send the readings as application/json or application/x-ndjson.")
        body = await bodies.read(request, self._limits)
        try:
            taken = push.parse(body, lines=kind == "application/x-ndjson", latest=time.time() + CLOCK_SECONDS)
        except push.BadReadings as error:
            raise HTTPException(400, str(error)) from None
        return _json({"taken": await self._live.take(taken)})

    def _check_pusher(self, request: Request) -> None:
        if request.client is None or _is_this_host(request.client.host):
            return
        if self._readings_token_file is None:
            raise HTTPException(
                403, "Readings from other hosts need a token; set EDGEWRIGHT_AGENT_READINGS_TOKEN_FILE on this node."
            )
        token = self._readings_token_file.read_bytes().strip()
        wanted = b"Bearer " + token
        if not token or not hmac.compare_digest(request.headers.get("authorization", "").encode(), wanted):
            raise HTTPException(
                401, "Send this node's readings token as Authorization: Bearer ….", {"WWW-Authenticate": "Bearer"}
            )

    def _find(self, name: str, version: str | None = None) -> Loaded:
        found = self._slots.live.get(name)
        if found is None:
            raise HTTPException(404, f"No model {name[:80]!r} is live here; GET /v1/snapshot lists them.")
        if version is not None and version != str(found.model.version):
            raise HTTPException(404, f"Model {name} is live in version {found.model.version}, not {version[:20]!r}.")
        return found


def _is_this_host(address: str) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


async def _alive() -> Response:
    return _json({"live": True})


async def _server() -> Response:
    return _json({"name": "edgewright-agent", "version": VERSION, "extensions": ["binary_tensor_data"]})


def _model_is_ready(found: Loaded) -> Response:
    return _json({"name": found.name, "ready": True, "model_version": str(found.model.version)})


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, "application/json")


def _response(answer: Answer) -> Response:
    headers = {"retry-after": "1"} if answer.status == 503 else {}
    if answer.head_length is None:
        return Response(answer.body, answer.status, headers, "application/json")
    headers[protocol_v2.HEADER] = str(answer.head_length)
    return Response(answer.body, answer.status, headers, "application/octet-stream")


async def _refuse(_: Request, error: AnyHTTPException) -> Response:
    headers = dict(error.headers or {})
    if error.status_code in (408, 413):
        headers["connection"] = "close"  # the rest of the body is not worth reading
    return _json({"error": error.detail}, error.status_code, headers)


async def _failed(_: Request, error: Exception) -> Response:
    log.error("A request failed: %s", error)
    return _json({"error": FAILED}, 500)
