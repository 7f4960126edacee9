"""The gateway's routes: releases for the operator, files for the nodes, always with a token; refusals are sentences."""

import asyncio
from typing import Annotated, Final

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from starlette.exceptions import HTTPException

from edgewright_contract.digests import Digest, is_digest
from edgewright_contract.models import first_fault
from edgewright_operator import mlflow
from edgewright_operator.gateway import access, answers, intake
from edgewright_operator.gateway.metrics import Counted, Metrics
from edgewright_operator.gateway.trusted import TrustRefused

MAX_BODY: Final = 4096
ITSELF: Final = (
    "Edgewright model gateway. Agents and the operator fetch signed releases here, with a token; there is no page "
    "for people.\n/healthz says whether it runs, /metrics what it answered.\n"
)
"""What a person reads who opens the address in a browser."""
_STATUS: Final[dict[type[Exception], tuple[int, str]]] = {
    access.Unauthenticated: (401, "Unauthenticated"),
    access.Forbidden: (403, "Forbidden"),
    access.Busy: (429, "Busy"),
    access.ApiUnavailable: (503, "ApiUnavailable"),
    intake.ReleaseChanged: (409, "ReleaseChanged"),
    intake.ReleaseRefused: (422, "ReleaseRefused"),
    TrustRefused: (422, "TrustRefused"),
    mlflow.ModelNotFound: (404, "ModelNotFound"),
    mlflow.VersionNotFound: (404, "VersionNotFound"),
    mlflow.ArtifactNotFound: (422, "ReleaseRefused"),
    mlflow.ArtifactTooLarge: (422, "ReleaseRefused"),
    mlflow.Unavailable: (503, "SourceUnavailable"),
    OSError: (503, "StorageError"),
}
_HEADERS: Final = {
    401: {"WWW-Authenticate": "Bearer"},
    429: {"Retry-After": "1"},
    503: {"Retry-After": "5"},
}


class Wanted(BaseModel):
    """Which release the operator asks for."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)

    registered_model: Annotated[str, Field(min_length=1, max_length=128)]
    version: Annotated[int, Field(ge=1)]
    manifest: Digest


def create(taking: intake.Intake, guard: access.Access) -> FastAPI:
    """The application; everything with an effect is passed in."""
    app = FastAPI(title="Edgewright model gateway", docs_url=None, redoc_url=None, openapi_url=None)
    metrics = Metrics()
    app.add_middleware(Counted, metrics=metrics)
    _refusals(app)
    _files(app, taking, guard)

    @app.get("/healthz")
    async def healthz() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/")
    async def itself() -> Response:
        return Response(ITSELF, media_type="text/plain; charset=utf-8")

    @app.get("/metrics")
    async def exposition() -> Response:
        metrics.releases.set(len(taking.taken))
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.post("/releases")
    async def releases(request: Request) -> dict[str, object]:
        guard.require_operator(await _caller(guard, request))
        wanted = await _wanted(request)
        taken = await taking.take(wanted.registered_model, wanted.version, wanted.manifest)
        opened = await taking.trusted(strict=True)
        metrics.trust.set(opened.trust.sequence)
        return {
            "manifest": taken.manifest.digest,
            "release": taken.release.model_dump(by_alias=True, mode="json"),
            "trust": opened.digest,
        }

    return app


def _files(app: FastAPI, taking: intake.Intake, guard: access.Access) -> None:
    @app.api_route("/blobs/sha256/{digits}", methods=["GET", "HEAD"])
    async def blobs(digits: str, request: Request) -> Response:
        caller = await _caller(guard, request)
        digest = f"sha256:{digits}"
        if not is_digest(digest):
            raise HTTPException(404, "a file is named by the 64 hex digits of its SHA-256")
        await guard.require(caller, digest, taking)
        file = await asyncio.to_thread(taking.blobs.find, digest)
        if file is None:
            raise HTTPException(404, f"{digest} is not here: trust.json has changed since, look at the EdgeNode again")
        return answers.file_answer(request, file, digest, answers.IMMUTABLE)

    @app.api_route("/trust", methods=["GET", "HEAD"])
    async def trust(request: Request) -> Response:
        guard.require_part(await _caller(guard, request))
        opened = await taking.trusted(strict=False)
        file = await asyncio.to_thread(taking.blobs.find, opened.digest)
        if file is None:
            raise mlflow.Unavailable("trust.json vanished from the cache: ask again")
        return answers.file_answer(request, file, opened.digest, answers.REVALIDATE)


async def _caller(guard: access.Access, request: Request) -> access.Caller:
    return await guard.caller(request.headers.get("authorization", ""))


async def _wanted(request: Request) -> Wanted:
    """The body, read only after the token was accepted, and no more of it than the question can have."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise HTTPException(413, f"the question has more than {MAX_BODY} bytes")
    try:
        return Wanted.model_validate_json(bytes(body))
    except ValidationError as error:
        raise HTTPException(422, first_fault(error, whole="body")) from None


def _refusals(app: FastAPI) -> None:
    reasons = {404: "NotFound", 405: "MethodNotAllowed", 413: "TooLarge", 422: "BadRequest"}

    @app.exception_handler(HTTPException)
    async def spoken(request: Request, error: HTTPException) -> Response:
        return answers.sentence(
            error.status_code, reasons.get(error.status_code, "Refused"), str(error.detail), error.headers
        )

    async def refused(request: Request, error: Exception) -> Response:
        status, reason = next(found for kind, found in _STATUS.items() if isinstance(error, kind))
        return answers.sentence(status, reason, str(error), _HEADERS.get(status, {}))

    for kind in _STATUS:
        app.add_exception_handler(kind, refused)
