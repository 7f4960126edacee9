"""The Starlette application: Open Inference Protocol v2, readings, health, metrics, the live page and its snapshot.

Nearly all infer requests are answered before they come here, in hot_route.py; both ways give the same bytes.
"""

import hmac
import ipaddress
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgewright_agent.serving import bodies, openapi, page, protocol_v2, push
from edgewright_agent.serving.inference import FAILED, Answer, Inference
from edgewright_agent.serving.live import Live
from edgewright_agent.serving.metrics import Metrics
from edgewright_agent.serving.slots import Loaded
from edgewright_agent.serving.window import CLOCK_SECONDS

log = logging.getLogger(__name__)


class Routes:
    """Handlers around the models and the live window."""

    def __init__(self, inference: Inference, live: Live, metrics: Metrics, readings_token_file: Path | None) -> None:
        self._inference, self._live, self._metrics = inference, live, metrics
        self._slots, self._limits = inference.slots, inference.limits
        self._readings_token_file = readings_token_file

    def app(self) -> Starlette:
        """The ASGI application; openapi.py describes each of its routes but the page and the description itself."""
        handlers: dict[Any, Any] = {HTTPException: _refuse, Exception: _failed}
        reads: dict[str, Any] = {
            "/": self._page,
            "/openapi.json": _openapi,
            "/healthz": _alive,
            "/v2/health/live": _alive,
            "/readyz": self._ready,
            "/v2/health/ready": self._ready,
            "/metrics": self._metrics_text,
            "/v1/snapshot": self._snapshot,
            "/v2": _server,
        }
        writes: dict[str, Any] = {"/v1/readings": self._readings}
        for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            reads |= {model: self._model, f"{model}/ready": self._model_ready}
            writes[f"{model}/infer"] = self._infer
        routes = [Route(path, handler, methods=["GET"]) for path, handler in reads.items()]
        routes += [Route(path, handler, methods=["POST"]) for path, handler in writes.items()]
        app = Starlette(routes=routes, exception_handlers=handlers)
        app.router.redirect_slashes = False
        return app

    async def _ready(self, _: Request) -> Response:
        return _json({"ready": bool(self._slots.live)}, 200 if self._slots.live else 503)

    async def _metrics_text(self, _: Request) -> Response:
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def _page(self, _: Request) -> Response:
        return Response(page.HTML, media_type="text/html; charset=utf-8", headers=page.HEADERS)

    async def _snapshot(self, _: Request) -> Response:
        live = self._live
        rows = [
            _told(item, state)
            for state, slot in (("Live", self._slots.live), ("Shadow", self._slots.shadow))
            for item in slot.values()
        ]
        now = {name: asdict(value) for name, value in live.snapshots.items() if name in self._slots.live}
        watts = [[reading.t, reading.watts] for reading in live.recent]
        body = {"models": rows, "snapshots": now, "readings": watts, "energyTodayJoules": live.energy_today}
        return _json(body, headers={"cache-control": "no-store"})

    async def _model(self, request: Request) -> Response:
        found = self._find(request.path_params)
        return _json(protocol_v2.model_metadata(found.name, found.model))

    async def _model_ready(self, request: Request) -> Response:
        found = self._find(request.path_params)
        return _json({"name": found.name, "ready": True, "model_version": str(found.model.version)})

    async def _infer(self, request: Request) -> Response:
        self._find(request.path_params)
        body = await bodies.read(request, self._limits)
        inference, found = self._inference, self._find(request.path_params)  # again: a swap may have come meanwhile
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
        latest, lines = time.time() + CLOCK_SECONDS, kind == "application/x-ndjson"
        one_by_one = self._inference.one_by_one
        try:
            async with one_by_one:
                pushed = push.parse(body, lines=lines)
            for start in range(0, len(pushed), push.PIECE):  # there may be tens of thousands
                async with one_by_one:
                    push.check(pushed, start, latest)
        except push.BadReadings as error:
            raise HTTPException(400, str(error)) from None
        return _json({"taken": await self._live.take(push.readings(pushed))})

    def _check_pusher(self, request: Request) -> None:
        if request.client is None or _is_this_host(request.client.host):
            return
        if self._readings_token_file is None:
            raise HTTPException(
                403, "Readings from other hosts need a token; set EDGEWRIGHT_AGENT_READINGS_TOKEN_FILE on this node."
            )
        try:
            token = self._readings_token_file.read_bytes().strip()
        except OSError as error:  # the file's path is not for a stranger's eyes
            log.warning("%s: %s; readings from other hosts are refused.", self._readings_token_file, error.strerror)
            raise HTTPException(
                503, "This node cannot read its readings token; see EDGEWRIGHT_AGENT_READINGS_TOKEN_FILE there."
            ) from None
        wanted = b"Bearer " + token
        if not token or not hmac.compare_digest(request.headers.get("authorization", "").encode(), wanted):
            raise HTTPException(
                401, "Send this node's readings token as Authorization: Bearer ….", {"WWW-Authenticate": "Bearer"}
            )

    def _find(self, named: Mapping[str, str]) -> Loaded:
        """The live model that a path names, perhaps with its version."""
        name, version = named["name"], named.get("version")
        found = self._slots.live.get(name)
        if found is None:
            raise HTTPException(404, f"No model {name[:80]!r} is live here; GET /v1/snapshot lists them.")
        if version is not None and version != str(found.model.version):
            raise HTTPException(404, f"Model {name} is live in version {found.model.version}, not {version[:20]!r}.")
        return found


def _told(loaded: Loaded, state: str) -> dict[str, object]:
    """One model on the page; the last two are null where its release has no reference, or too few windows were seen."""
    model, spread = loaded.model, loaded.figures.spread
    seen = {
        "unknownRatio": None if spread is None else spread.unknown_ratio(),
        "drift": None if spread is None else spread.farthest(),
    }
    return {"name": loaded.name, "version": model.version, "variant": model.variant, "state": state, **seen}


def _is_this_host(address: str) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


async def _alive(_: Request) -> Response:
    return _json({"live": True})


async def _server(_: Request) -> Response:
    return _json({**protocol_v2.SERVER, "extensions": ["binary_tensor_data"]})


async def _openapi(_: Request) -> Response:
    return _json(openapi.document(protocol_v2.SERVER["version"]))


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, "application/json")


def _response(answer: Answer) -> Response:
    headers = {"retry-after": "1"} if answer.status == 503 else {}
    if answer.head_length is None:
        return Response(answer.body, answer.status, headers, "application/json")
    headers[protocol_v2.HEADER] = str(answer.head_length)
    return Response(answer.body, answer.status, headers, "application/octet-stream")


async def _refuse(_: Request, error: HTTPException) -> Response:
    headers = dict(error.headers or {})
    if error.status_code in (408, 413):
        headers["connection"] = "close"  # the rest of the body is not worth reading
    return _json({"error": error.detail}, error.status_code, headers)


async def _failed(_: Request, error: Exception) -> Response:
    log.error("A request failed: %s", error)
    return _json({"error": FAILED}, 500)
