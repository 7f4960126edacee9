"""What /openapi.json says: every route of routes.py but the page, with its bodies and answers."""

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


_INFER: Final = _body(
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
_BINARY: Final = {"type": "string", "format": "binary"}
_READING: Final = {
    "type": "object",
    "required": ["t", "watts"],
    "properties": {"t": {"type": "number", "minimum": 0}, "watts": {"type": "number"}},
}
_READINGS: Final = _body(
    {
        "application/json": {
            "type": "object",
            "required": ["readings"],
            "properties": {"readings": {"type": "array", "items": _READING}},
        },
        "application/x-ndjson": {"type": "string"},
    }
)


_NAME: Final = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_VERSION: Final = {**_NAME, "name": "version"}
_MODEL: Final = "/v2/models/{name}"
_MODEL_VERSION: Final = "/v2/models/{name}/versions/{version}"


def document(version: str) -> dict[str, Any]:
    """The OpenAPI document."""
    info = {"title": "Edgewright node", "version": version}
    paths = {**_node_paths(), **_model_paths(_MODEL, [_NAME]), **_model_paths(_MODEL_VERSION, [_NAME, _VERSION])}
    return {"openapi": "3.1.0", "info": info, "paths": paths}


def _node_paths() -> dict[str, Any]:
    alive = _get("Whether the process answers.", _object("live"))
    not_ready = {"503": _answer("No model is live yet.", {"application/json": _object("ready")})}
    ready = _get("Whether a model is live.", _object("ready"), not_ready)
    taken = _answers({"application/json": _object("taken")}, 400, 401, 403, 413, 415)
    return {
        "/healthz": alive,
        "/v2/health/live": alive,
        "/readyz": ready,
        "/v2/health/ready": ready,
        "/metrics": {
            "get": {"summary": "For Prometheus.", "responses": {"200": _answer("Metrics.", {"text/plain": {}})}}
        },
        "/v1/snapshot": _get("What the page shows.", _object("models", "snapshots", "readings", "energyTodayJoules")),
        "/v1/readings": {"post": {"summary": "Readings of the meter.", **_READINGS, "responses": taken}},
        "/v2": _get("Name, version and extensions of the server.", _object("name", "version", "extensions")),
    }


def _model_paths(path: str, names: list[dict[str, Any]]) -> dict[str, Any]:
    missing = _refusals(404)
    answered = _answers(
        {"application/json": _INFERRED, "application/octet-stream": _BINARY}, 400, 404, 408, 413, 415, 503
    )
    found: dict[str, Any] = {
        path: _get("Inputs and outputs of a model.", _object("name", "versions", "inputs", "outputs"), missing),
        f"{path}/ready": _get("Whether a model is live.", _object("name", "ready", "model_version"), missing),
        f"{path}/infer": {"post": {"summary": "Answer windows.", **_INFER, "responses": answered}},
    }
    return {name: {**operations, "parameters": names} for name, operations in found.items()}


def _object(*required: str) -> dict[str, Any]:
    return {"type": "object", "required": list(required)}


def _answer(description: str, schemas: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {kind: {"schema": schema} for kind, schema in schemas.items()}}


def _get(summary: str, schema: dict[str, Any], others: dict[str, Any] | None = None) -> dict[str, Any]:
    responses = {"200": _answer("Answered.", {"application/json": schema}), **(others or {})}
    return {"get": {"summary": summary, "responses": responses}}


def _answers(schemas: dict[str, Any], *refused: int) -> dict[str, Any]:
    return {"200": _answer("Answered.", schemas), **_refusals(*refused)}


def _refusals(*codes: int) -> dict[str, Any]:
    """The answers that carry a sentence in `error`."""
    return {str(code): _answer("Refused; `error` says why.", {"application/json": _ERROR}) for code in codes}
