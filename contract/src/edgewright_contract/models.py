"""The two pydantic bases: objects of the Kubernetes API (unknown fields pruned) and signed documents (strict)."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""A moment in a Kubernetes object (RFC 3339); `timestamps.rfc3339` writes it."""

# How the API server merges a list of two writers; atomic ones also keep managedFields small.
ATOMIC_LIST: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}
LIST_BY_NAME: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
LIST_BY_TYPE: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}


class ApiModel(BaseModel):
    """Part of a Kubernetes object. Unknown fields are ignored, so that an older reader survives a newer CRD."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, use_attribute_docstrings=True
    )


class SignedModel(BaseModel):
    """Part of a signed document. Unknown fields are refused: nobody may sign what we do not understand."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


def first_fault(error: ValidationError, within: str = "", whole: str = "") -> str:
    """Where and what the first fault is, as a sentence for people; `within` goes before its path, dots between.

    whole: what the place is called where the path is empty.
    """
    first = error.errors()[0]
    place = ".".join(filter(None, (within, *map(str, first["loc"])))) or whole
    return f"{place}: {first['msg']}"
