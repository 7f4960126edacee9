"""CompressedModel and EdgeNode as CustomResourceDefinitions: JSON Schema of the pydantic types, made structural.

`deploy/generate.py` writes what `crds()` returns; the API server then refuses what the types would refuse.
"""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from edgewright_contract import names
from edgewright_contract.compressedmodel import CompressedModelSpec
from edgewright_contract.compressedmodel_status import CompressedModelStatus
from edgewright_contract.edgenode import EdgeNodeSpec, EdgeNodeStatus

_READY: Final = '.status.conditions[?(@.type=="Ready")]'
_WIDE: Final = {
    "name": "Message",
    "type": "string",
    "jsonPath": f"{_READY}.message",
    "description": "why, as a sentence (-o wide)",
    "priority": 1,
}
_COPIED: Final = frozenset(
    {
        "type", "description", "enum", "required", "pattern", "format",
        "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties", "minProperties",
    }
)  # fmt: skip
_LEFT_OUT: Final = frozenset({"title", "$defs", "propertyNames"})
"""Which structural schemas cannot hold, and which only repeat what stands elsewhere."""


class NotStructural(TypeError):
    """A type has no structural schema; write its x-kubernetes-* keys by hand."""


def crds() -> list[dict[str, Any]]:
    """Both definitions, as documents for the API server."""
    return [_compressed_model(), _edge_node()]


def structural_schema(model: type[BaseModel], *, defaults: bool) -> dict[str, Any]:
    """The structural schema of a type; with `defaults`, the server fills absent fields in.

    Raises:
        NotStructural: the type holds a union, tuple or keyword that no structural schema has.
    """
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _structural(schema, schema.get("$defs", {}), defaults)


def _compressed_model() -> dict[str, Any]:
    columns = [
        _column("Model", ".spec.source.registeredModel", "registered model"),
        _column("Alias", ".spec.source.alias", "alias that is followed"),
        _column("Version", ".status.release.version", "version that is rolled out", "integer"),
        _column("Good", ".status.lastGood.version", "last version that passed all its gates", "integer"),
        _column("Exposed", ".status.wave.exposed", "nodes that have the release", "integer"),
        _column("Live", ".status.counts.live", "nodes that serve the release", "integer"),
        _column("Total", ".status.counts.total", "selected nodes", "integer"),
        _column("Ready", f"{_READY}.status", "whether all reachable nodes serve the release"),
        _column("Reason", f"{_READY}.reason", "why"),
        _column("Age", ".metadata.creationTimestamp", "since creation", "date"),
        _WIDE,
    ]
    schema = _object(CompressedModelSpec, CompressedModelStatus, "Which model the selected edge nodes should serve.")
    schema["required"] = ["spec"]
    return _definition("CompressedModel", names.COMPRESSED_MODELS, "cmodel", "Namespaced", columns, schema)


def _edge_node() -> dict[str, Any]:
    columns = [
        _column("Class", ".status.hardware.class", "hardware class"),
        _column("State", ".status.models[*].state", "state of each model"),
        _column("Variant", ".status.models[*].live.variant", "variant that is served"),
        _column("Version", ".status.models[*].live.version", "version that is served"),
        _column("Ready", f"{_READY}.status", "whether it serves what it should"),
        _column("Reason", f"{_READY}.reason", "why"),
        _column("Age", ".metadata.creationTimestamp", "since creation", "date"),
        _WIDE,
    ]
    schema = _object(EdgeNodeSpec, EdgeNodeStatus, "What one edge node should serve, and what it serves and measures.")
    return _definition("EdgeNode", names.EDGE_NODES, "enode", "Cluster", columns, schema)


def _object(spec: type[BaseModel], status: type[BaseModel], description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural_schema(spec, defaults=True),
            # A default in status would be a fact that nobody observed.
            "status": structural_schema(status, defaults=False),
        },
    }


def _definition(
    kind: str, plural: str, short: str, scope: str, columns: list[dict[str, Any]], schema: dict[str, Any]
) -> dict[str, Any]:
    version = {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": schema},
    }
    called = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": kind.lower(),
        "shortNames": [short],
        "categories": ["edgewright"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{names.GROUP}"},
        "spec": {"group": names.GROUP, "scope": scope, "names": called, "versions": [version]},
    }


def _column(name: str, path: str, description: str, kind: str = "string") -> dict[str, Any]:
    return {"name": name, "type": kind, "jsonPath": path, "description": description}


def _structural(node: Mapping[str, Any], defs: Mapping[str, Any], defaults: bool) -> dict[str, Any]:
    node = _resolved(node, defs)
    result: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties":
            result[key] = {name: _structural(schema, defs, defaults) for name, schema in value.items()}
        elif key == "items":
            result[key] = _structural(value, defs, defaults)
        elif key == "additionalProperties":
            if isinstance(value, dict):  # false needs no words: the server prunes
                result[key] = _structural(value, defs, defaults)
        elif key == "const":
            result["enum"] = [value]
        elif key == "default":
            if defaults and value is not None:
                result[key] = _without_nulls(value)
        elif key in _COPIED or key.startswith("x-kubernetes-"):
            result[key] = value
        elif key not in _LEFT_OUT:
            raise NotStructural(f"{node.get('title', '?')}: {key} has no place in a structural schema")
    return result


def _resolved(node: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    """The schema itself: a reference followed, `X | None` as X, since absence is how Kubernetes says null."""
    if "$ref" in node:
        target = defs[node["$ref"].rpartition("/")[2]]
        return _resolved({**target, **{key: value for key, value in node.items() if key != "$ref"}}, defs)
    if "anyOf" not in node:
        return dict(node)
    rest = {key: value for key, value in node.items() if key != "anyOf"}
    choices = [choice for choice in node["anyOf"] if choice.get("type") != "null"]
    if len(choices) == 1:
        return _resolved({**choices[0], **rest}, defs)
    if rest.get("x-kubernetes-int-or-string"):
        return rest
    raise NotStructural(f"{node.get('title', '?')}: a union has no structural schema")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
