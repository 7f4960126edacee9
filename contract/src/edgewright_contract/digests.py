"""SHA-256 digests as they stand in objects, manifests and URLs: `sha256:<64 hex digits>`."""

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

if TYPE_CHECKING:
    from pydantic_core.core_schema import StringSchema

DIGEST_PATTERN: Final = r"^sha256:[0-9a-f]{64}$"
_DIGEST = re.compile(DIGEST_PATTERN)


@dataclass(frozen=True)
class _Constraint:
    """As pydantic's StringConstraints, but whoever only verifies a signature need not import pydantic (20 ms)."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> "StringSchema":
        from pydantic_core import core_schema

        return core_schema.str_schema(pattern=DIGEST_PATTERN, max_length=71)


Digest = Annotated[str, _Constraint()]
"""`sha256:<64 hex digits>`, as a field of a pydantic model."""


def digest_of(data: bytes | memoryview) -> str:
    """The digest of these bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def is_digest(text: str) -> bool:
    """Whether the text is a well-formed digest."""
    return _DIGEST.fullmatch(text) is not None


def short(digest: str) -> str:
    """The first twelve hex digits, for people."""
    return digest.removeprefix("sha256:")[:12]
