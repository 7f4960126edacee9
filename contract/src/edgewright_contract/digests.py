"""SHA-256 digests as they stand in objects, manifests and URLs: `sha256:<64 hex digits>`."""

import hashlib
import re
from typing import Annotated, Final

from pydantic import StringConstraints

DIGEST_PATTERN: Final = r"^sha256:[0-9a-f]{64}$"
_DIGEST = re.compile(DIGEST_PATTERN)

Digest = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN, max_length=71)]


def digest_of(data: bytes | memoryview) -> str:
    """The digest of these bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def is_digest(text: str) -> bool:
    """Whether the text is a well-formed digest."""
    return _DIGEST.fullmatch(text) is not None


def short(digest: str) -> str:
    """The first twelve hex digits, for people."""
    return digest.removeprefix("sha256:")[:12]
