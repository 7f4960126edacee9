"""Whether the installed uvicorn can carry the hot route, which rests on names that are not public."""

from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_NEEDED: Final = {
    *("connection_made", "connection_lost", "data_received", "on_message_begin", "on_url", "on_header"),
    *("on_headers_complete", "on_response_complete"),
    *("on_body", "on_message_complete", "shutdown", "pause_writing", "resume_writing", "send_400_response"),
}
_NEEDED_STATE: Final = {
    *("url", "headers", "scope", "cycle", "pipeline", "flow", "parser", "expect_100_continue", "connections"),
    *("server_state", "transport", "loop"),
}


def misfit(protocol: type[Any] = HttpToolsProtocol) -> str | None:
    """Why this uvicorn cannot carry the hot route, or none where it can: it rests on names that are not public."""
    missing = sorted(name for name in _NEEDED if not callable(getattr(protocol, name, None)))
    set_there = {name for method in ("__init__", "on_message_begin") for name in _names_in(protocol, method)}
    missing += sorted(_NEEDED_STATE - set_there)
    return f"uvicorn's HTTP protocol has no {', '.join(missing)}" if missing else None


def _names_in(protocol: type[Any], method: str) -> tuple[str, ...]:
    code = getattr(getattr(protocol, method, None), "__code__", None)
    return code.co_names if code is not None else ()
