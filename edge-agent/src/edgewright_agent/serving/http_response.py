"""An answer as HTTP/1.1 bytes, for the hot route."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from edgewright_agent.serving import protocol_v2
from edgewright_agent.serving.inference import Answer

_JSON: Final = b"application/json"
_OCTETS: Final = b"application/octet-stream"
_HEAD_LENGTH: Final = protocol_v2.HEADER.encode()
_STATUS: Final = {int(status): b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}


def http_response(answer: Answer, default_headers: Iterable[tuple[bytes, bytes]], *, close: bool) -> bytes:
    """The answer in HTTP/1.1, byte for byte as Starlette and uvicorn write it on the plain way."""
    parts = [_STATUS[answer.status]]
    for name, value in default_headers:
        parts += (name, b": ", value, b"\r\n")
    refused = answer.status in (408, 413, 431)
    if answer.status == 503:
        parts.append(b"retry-after: 1\r\n")
    if refused:
        parts.append(b"connection: close\r\n")
    if answer.head_length is not None:
        parts.append(b"%s: %d\r\n" % (_HEAD_LENGTH, answer.head_length))
    kind = _JSON if answer.head_length is None else _OCTETS
    parts.append(b"content-length: %d\r\ncontent-type: %s\r\n" % (len(answer.body), kind))
    if close and not refused:
        parts.append(b"connection: close\r\n")
    parts += (b"\r\n", answer.body)
    return b"".join(parts)
