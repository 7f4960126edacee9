"""What /openapi.json says of the bodies that are read by hand, because FastAPI would read them too slowly."""

from typing import Any, Final

from edgewright_agent.serving.engine import INPUT, OUTPUT

_NUMBERS: Final = {"type": "array", "items": {"type": "number"}}
_SHAPE: Final = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 3, "maxItems": 3}
_ERROR: Final = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}


def _body(schemas: dict[str, Any]) -> dict[str, Any]:
    content = {kind: {"schema": schema} for kind, schema in schemas.items()}
    return {"requestBody": {"required": True, "content": content}}


def _tensor(name: str, shape: dict[str, Any]) -> dict[str, Any]:
    properties = {"name": {"const": name}, "datatype": {"const": "FP32"}, "shape": shape, "data": _NUMBERS}
    return {"type": "object", "required": ["name", "datatype", "shape", "data"], "properties": properties}


INFER: Final = _body(
    {
        "application/json": {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "id": {"type": "string", "maxLength": 256},
                "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": _tensor(INPUT, _SHAPE)},
            },
        },
        "application/octet-stream": {"type": "string", "format": "binary"},
    }
)
_INFERRED: Final = {
    "type": "object",
    "required": ["model_name", "model_version", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "outputs": {"type": "array", "items": _tensor(OUTPUT, {"type": "array", "items": {"type": "integer"}})},
    },
}
INFERRED: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {"application/json": {"schema": _INFERRED}}}}
_READING: Final = {
    "type": "object",
    "required": ["t", "watts"],
    "properties": {"t": {"type": "number", "minimum": 0}, "watts": {"type": "number"}},
}
READINGS: Final = _body(
    {
        "application/json": {
            "type": "object",
            "required": ["readings"],
            "properties": {"readings": {"type": "array", "items": _READING}},
        },
        "application/x-ndjson": {"type": "string"},
    }
)


def refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The answers that carry a sentence in `error`."""
    content = {"application/json": {"schema": _ERROR}}
    return {code: {"description": "Refused; `error` says why.", "content": content} for code in codes}
