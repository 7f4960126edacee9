"""The Python messages of the agent's gRPC door, from its .proto file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from grpc_tools import protoc

_FOLDER: Final = Path("edge-agent/src/edgewright_agent/serving")
_SOURCE: Final = _FOLDER / "open_inference.proto"


def files(root: Path) -> dict[Path, str]:
    """Path → text of the messages and of their types.

    Raises:
        ValueError: the .proto file does not compile; protoc has printed why.
    """
    with tempfile.TemporaryDirectory() as made:
        code = protoc.main(
            ["protoc", f"-I{root / _FOLDER}", f"--python_out={made}", f"--pyi_out={made}", str(root / _SOURCE)]
        )
        if code:
            raise ValueError(f"{_SOURCE} does not compile")
        return {_FOLDER / file.name: file.read_text() for file in sorted(Path(made).iterdir())}
