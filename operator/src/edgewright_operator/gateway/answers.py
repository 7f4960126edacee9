"""How a file leaves the gateway: read in threads, piece by piece, so that no file is ever in memory as a whole."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from edgewright_operator.gateway import ranges

PIECE: Final = 256 * 1024
IMMUTABLE: Final = "private, max-age=31536000, immutable"
REVALIDATE: Final = "private, no-cache"


def file_answer(request: Request, file: Path, digest: str, caching: str) -> Response:
    """The file, one range of it, 304 or 416; the digest is its strong ETag (RFC 9110)."""
    size, tag = file.stat().st_size, f'"{digest}"'
    headers = {"ETag": tag, "Accept-Ranges": "bytes", "Cache-Control": caching, "X-Content-Type-Options": "nosniff"}
    if _matches(request.headers.get("if-none-match", ""), tag):
        return Response(None, 304, headers)
    wanted = request.headers.get("range", "")
    if request.headers.get("if-range", tag) != tag:
        wanted = ""
    try:
        part = ranges.part(wanted, size) if request.method == "GET" else None
    except ranges.Unsatisfiable as error:
        return sentence(416, "RangeNotSatisfiable", str(error), headers | {"Content-Range": f"bytes */{size}"})
    if part is None:
        return FilePiece(file, ranges.Part(0, size), 200, headers)
    headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{size}"
    return FilePiece(file, part, 206, headers)


def sentence(status: int, reason: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Every refusal says what was wrong."""
    return JSONResponse({"reason": reason, "message": message[:1024]}, status, dict(headers or {}))


def _matches(header: str, tag: str) -> bool:
    return header.strip() == "*" or tag in (entry.strip().removeprefix("W/") for entry in header.split(","))


class FilePiece(Response):
    """A part of a file as the body; HEAD gets its headers only."""

    media_type = "application/octet-stream"

    def __init__(self, file: Path, part: ranges.Part, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(None, status, {**headers, "Content-Length": str(part.end - part.start)})
        self.file, self.part = file, part

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. A file that ends early ends the connection: a short body must not look whole."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD" or self.part.start == self.part.end:
            await send({"type": "http.response.body", "body": b""})
            return
        with await asyncio.to_thread(self.file.open, "rb") as stream:
            at = self.part.start
            while at < self.part.end:
                wanted = min(PIECE, self.part.end - at)
                data = await asyncio.to_thread(os.pread, stream.fileno(), wanted, at)
                if not data:
                    raise RuntimeError(f"{self.file} became shorter while it was sent")
                at += len(data)
                await send({"type": "http.response.body", "body": data, "more_body": at < self.part.end})
