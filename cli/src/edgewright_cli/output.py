"""How every command speaks: people read tables on standard output, scripts read one JSON object as the last line."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

INTERRUPTED = 130
"""Exit code after Ctrl-C, as a shell has it."""

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line, for scripts.")]

# No markup: names, reasons and paths come from elsewhere, and one with brackets is shown as it is.
out = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def print_json(value: Mapping[str, Any]) -> None:
    """The object on one line."""
    typer.echo(json.dumps(value, sort_keys=True))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], console: Console = out) -> None:
    """Rows under their titles, nothing cut off. Where no terminal sets a width, as in a log, each row is one line."""
    grid = Table(*(Column(title, overflow="fold") for title in columns), box=None, pad_edge=False)
    for row in rows:
        grid.add_row(*row)
    wide = (
        console
        if console.is_terminal
        else Console(file=console.file, width=1_000, highlight=False, markup=False, emoji=False)
    )
    wide.print(grid)


def tell_error(sentence: str) -> None:
    """What went wrong, on standard error."""
    err.print(Text.assemble(("error:", "bold red"), " ", sentence))


@contextmanager
def sentences(*expected: type[Exception]) -> Iterator[None]:
    """Turn the expected errors into one sentence on standard error and exit code 1; a bug keeps its traceback."""
    try:
        yield
    except expected as error:
        tell_error(str(error))
        raise typer.Exit(1) from None
