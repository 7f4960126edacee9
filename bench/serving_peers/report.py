"""How the benches speak: progress beside the result, the result as JSON where it is asked for."""

import json
import sys
from pathlib import Path
from typing import Any


def say(text: str) -> None:
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


def deliver(result: dict[str, Any], out: Path | None, *, as_json: bool, ensure_ascii: bool = True) -> None:
    """Write the result to `out`, if there is one; print it as the last line, if that is asked for."""
    if out:
        out.write_text(json.dumps(result, indent=1, ensure_ascii=ensure_ascii) + "\n")
    if as_json:
        print(json.dumps(result, ensure_ascii=ensure_ascii))
