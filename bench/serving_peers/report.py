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


def load_table(result: dict[str, Any]) -> str:
    """Overhead with pauses and requests a second when saturated, where they were measured, as a Markdown table."""
    columns = {f"{name} pause, µs": {**rows[0], **rows[1]} for name, rows in result.get("pauses", {}).items()}
    values = {title: {k: v["overheadMicroseconds"] for k, v in rows.items()} for title, rows in columns.items()}
    values |= {f"{count} connections": rows for count, rows in result.get("throughput", {}).items()}
    lines = [f"| server | {' | '.join(values)} |", "|---|" + "--:|" * len(values)]
    for name in sorted({name for rows in values.values() for name in rows}):
        cells = (f"{rows[name]:,.0f}" if name in rows else "" for rows in values.values())
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
