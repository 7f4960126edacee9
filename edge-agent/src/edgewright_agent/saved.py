"""A small document on disk that outlives its own damage: it carries its digest, and the version before stays beside it.

Storage of edge nodes wears out, and a kernel that dies may leave zeros in a file that was flushed.
"""

import contextlib
import logging
from pathlib import Path
from typing import Final, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from edgewright_agent import disk
from edgewright_agent.disk import FileOps
from edgewright_contract.digests import digest_of
from edgewright_contract.models import first_fault

_LOG = logging.getLogger(__name__)
MAX_BYTES: Final = 4 * 1024 * 1024
_START, _END = b'{"check":"', b'",'
_DIGEST_LENGTH: Final = len(digest_of(b""))
_Kind = TypeVar("_Kind", bound=BaseModel)


class StateError(Exception):
    """The agent's folder cannot be used; the sentence says why."""


class Saved(Generic[_Kind]):
    """A document of one kind at `path`, and at `before` what stood there until the last save."""

    def __init__(self, path: Path, kind: type[_Kind], ops: FileOps) -> None:
        self.path, self.before = path, path.with_name("before-" + path.name)
        self.damage = ""
        """What `load` found damaged and put aside."""
        self._kind, self._ops = kind, ops
        self._stands = False

    def load(self) -> _Kind | None:
        """The newest version that is whole; none where nothing was saved yet, or all of it is damaged.

        What is damaged is renamed to `damaged-…`, for people to look at.

        Raises:
            StateError: nothing whole is there, and a file is there that cannot be read.
        """
        unreadable: StateError | None = None
        for path in (self.path, self.before):
            try:
                found = self._kind.model_validate_json(_unsealed(disk.read_plain(self._ops, path, MAX_BYTES)))
            except FileNotFoundError:
                continue
            except OSError as error:
                unreadable = StateError(f"{path}: {error.strerror}")
            except ValidationError as error:
                self._put_aside(path, first_fault(error, whole="top level"))
            except ValueError as error:
                self._put_aside(path, str(error))
            else:
                self._stands = path == self.path
                return found
        if unreadable is not None:
            raise unreadable
        return None

    def save(self, document: _Kind) -> None:
        """Replace the document; a crash at any point leaves the new version or the one before.

        Raises:
            OSError: the disk refuses; what was saved before still stands.
        """
        data = _sealed(document.model_dump_json(by_alias=True).encode())
        disk.replace_file(self._ops, self.path, data, self.before if self._stands else None)
        self._stands = True

    def _put_aside(self, path: Path, why: str) -> None:
        self.damage = f"{path.name} was damaged ({why})"
        _LOG.error("%s: put aside; the version before it is taken", self.damage)
        with contextlib.suppress(OSError):
            self._ops.replace(path, path.with_name("damaged-" + path.name))


def _sealed(text: bytes) -> bytes:
    """A JSON object with the digest of the rest as its first member: still one JSON document."""
    return _START + digest_of(text).encode() + _END + text[1:]


def _unsealed(data: bytes) -> bytes:
    """The object without its digest.

    Raises:
        ValueError: the bytes are not those that were saved.
    """
    head = len(_START) + _DIGEST_LENGTH + len(_END)
    text = b"{" + data[head:]
    if data[:head] != _START + digest_of(text).encode() + _END:
        raise ValueError("its bytes do not fit its own digest")
    return text
