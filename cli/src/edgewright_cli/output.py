"""How every command speaks: people read tables on standard output, scripts read one JSON object as the last line."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

INTERRUPTED = 130
"""Exit code after Ctrl-C, as a shell has it."""

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line, for scripts.")]

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def print_json(value: Mapping[str, Any]) -> None:
    """The object on one line."""
    typer.echo(json.dumps(value, sort_keys=True))


@contextmanager
def sentences(*expected: type[Exception]) -> Iterator[None]:
    """Turn the expected errors into one sentence on standard error and exit code 1; a bug keeps its traceback."""
    try:
        yield
    except expected as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}")  # a path may hold brackets
        raise typer.Exit(1) from None
