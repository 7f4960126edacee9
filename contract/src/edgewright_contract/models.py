"""The two pydantic bases: objects of the Kubernetes API (unknown fields pruned) and signed documents (strict)."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


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
