"""Beside the flow: keeps what a stage made under the hash of everything that decided it, so that a rerun reuses it."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

CODE: Final = 2
"""Raised by hand when a stage's code changes what it makes from the same inputs."""


@dataclass(frozen=True, slots=True)
class Stages:
    """A folder of finished stages."""

    directory: Path

    def keep(self, name: str, decided_by: Mapping[str, Any], make: Callable[[], bytes]) -> bytes:
        """What `make` gives, from disk when the same inputs gave it before. A damaged file is made anew.

        Raises:
            OSError: the folder cannot be written; nothing that was finished before is lost.
        """
        key = hashlib.sha256(json.dumps([CODE, name, decided_by], sort_keys=True).encode()).hexdigest()
        file = self.directory / f"{name}-{key[:16]}"
        if (kept := _checked(file)) is not None:
            return kept
        made = make()
        self.directory.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.name}.{os.getpid()}.part")
        part.write_bytes(hashlib.sha256(made).digest() + made)
        part.replace(file)
        return made


def _checked(file: Path) -> bytes | None:
    try:
        stored = file.read_bytes()
    except FileNotFoundError:
        return None
    made = stored[32:]
    return made if hashlib.sha256(made).digest() == stored[:32] else None
