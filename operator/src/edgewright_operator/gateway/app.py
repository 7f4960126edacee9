"""The gateway's routes: releases for the operator, blobs for the nodes, always with a token."""

import re
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from edgewright_contract.digests import Digest
from edgewright_operator import mlflow
from edgewright_operator.gateway import access, intake

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_STATUS: dict[type[Exception], tuple[int, str]] = {
    access.Unauthenticated: (401, "Unauthenticated"),
    access.Forbidden: (403, "Forbidden"),
    access.ApiUnavailable: (503, "ApiUnavailable"),
    intake.ReleaseChanged: (409, "ReleaseChanged"),
    intake.ReleaseRefused: (422, "ReleaseRefused"),
    mlflow.VersionNotFound: (404, "VersionNotFound"),
    mlflow.ArtifactNotFound: (422, "ReleaseRefused"),
    mlflow.ArtifactTooLarge: (422, "ReleaseRefused"),
    mlflow.Unavailable: (503, "SourceUnavailable"),
}


class Wanted(BaseModel):
    """Which release the operator asks for."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)

    registered_model: Annotated[str, Field(min_length=1, max_length=128)]
    version: Annotated[int, Field(ge=1)]
    manifest: Digest


def create(taking: intake.Intake, guard: access.Access, operator: str) -> FastAPI:
    """The application; everything with an effect is passed in."""
    app = FastAPI(title="Edgewright model gateway", docs_url=None, redoc_url=None)

    @app.middleware("http")
    async def sentences(request: Request, following: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            return await following(request)
        except tuple(_STATUS) as error:
            status, reason = _STATUS[type(error)]
            headers = {"Retry-After": "5"} if status == 503 else {}
            return JSONResponse({"reason": reason, "message": str(error)}, status, headers)

    @app.get("/healthz")
    async def healthz() -> dict[str, bool]:
        return {"ok": True}

    @app.post("/releases")
    async def releases(wanted: Wanted, authorization: Annotated[str, Header()] = "") -> dict[str, object]:
        caller = await guard.caller(authorization)
        if caller.username != operator:
            raise access.Forbidden(f"{caller.username} may not ask for releases: only {operator} does")
        taken = await taking.take(wanted.registered_model, wanted.version, wanted.manifest)
        return {
            "manifest": taken.manifest.digest,
            "release": taken.release.model_dump(by_alias=True, mode="json"),
            "trust": taking.trusted().digest,
        }

    @app.get("/blobs/sha256/{digits}")
    async def blobs(
        digits: str,
        authorization: Annotated[str, Header()] = "",
        range_: Annotated[str, Header(alias="range")] = "",
    ) -> Response:
        caller = await guard.caller(authorization)
        digest = f"sha256:{digits}"
        await guard.require(caller, digest, taking)
        data = taking.blobs.get(digest)
        if data is None:
            raise mlflow.Unavailable(f"{digest} is not in the cache: the operator asks for it within its poll")
        return ranged(data, digest, range_)

    return app


def ranged(data: bytes, digest: str, wanted: str) -> Response:
    """The whole file, or the one range that was asked for (RFC 9110); the digest is a strong ETag."""
    headers = {
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
    }
    match = _RANGE.fullmatch(wanted)
    if match is None or match[1] == match[2] == "":
        return Response(data, 200, headers, "application/octet-stream")
    start = int(match[1]) if match[1] else max(0, len(data) - int(match[2]))
    end = min(int(match[2]), len(data) - 1) if match[1] and match[2] else len(data) - 1
    if start > end:
        return Response(b"", 416, headers | {"Content-Range": f"bytes */{len(data)}"})
    part = headers | {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
    return Response(data[start : end + 1], 206, part, "application/octet-stream")
