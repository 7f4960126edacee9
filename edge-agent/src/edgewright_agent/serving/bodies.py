"""Bodies on the plain way, read within size and time."""

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from edgewright_agent.serving.inference import Limits


async def read(request: Request, limits: Limits) -> bytes:
    """The whole body; what is too large is refused before it is held.

    Raises:
        HTTPException: 400, 408, 413 or 415 with a sentence.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException(415, "Compressed bodies are not supported; send it as it is.")
    too_large = HTTPException(413, f"The body may have at most {limits.body_bytes} bytes; send fewer windows.")
    if int(request.headers.get("content-length", "0")) > limits.body_bytes:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                size += len(part)
                if size > limits.body_bytes:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise HTTPException(408, f"The request took longer than {limits.body_seconds:g} s.") from None
    except ClientDisconnect:
        raise HTTPException(400, "The connection ended within the body.") from None
    return b"".join(parts)
