"""What the pages tell people to type exists: make targets and commands of `edgewright`; so do the folders they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

_ROOT = Path(__file__).parents[2]
_PAGES = sorted([_ROOT / "README.md", *(_ROOT / "docs").rglob("*.md")])
# A command in a block or in back quotes: `edgewright data fetch`, `kubectl edgewright why NAME`.
_EDGEWRIGHT = re.compile(
    r"(?:^ {4,}|`|^)((?:kubectl )?edgewright) ([a-z][a-z-]*)(?: ([a-z][a-z-]*)\b(?!/))?", re.MULTILINE
)
_MAKE = re.compile(r"(?:^ {4,}|`|^)make ([a-z][a-z-]*)", re.MULTILINE)


def _commands(program: str) -> dict[str, set[str]]:
    """Command → its own commands; none for one that has no others below it."""
    from edgewright_cli import kubectl, main

    built = typer.main.get_group(main.app if program == "edgewright" else kubectl.app)
    return {name: set(getattr(command, "commands", ())) for name, command in built.commands.items()}


def unknown(text: str) -> set[str]:
    """Commands of `edgewright` that a text names and that are not there."""
    missing = set()
    for program, first, second in _EDGEWRIGHT.findall(text):
        known = _commands(program)
        if first not in known:
            missing.add(f"{program} {first}")
        elif known[first] and second and second not in known[first]:
            missing.add(f"{program} {first} {second}")
    return missing


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_every_command_of_the_page_exists(page: Path) -> None:
    text = page.read_text()
    assert unknown(text) == set()
    targets = set(re.findall(r"^([a-z-]+):", (_ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(_MAKE.findall(text)) <= targets


def test_a_command_that_is_not_there_is_noticed() -> None:
    assert unknown("`edgewright data fetch` and `edgewright data wash`\n    kubectl edgewright dance NAME\n") == {
        "edgewright data wash",
        "kubectl edgewright dance",
    }


def test_every_folder_of_the_map_is_there() -> None:
    mapped = re.findall(r"^\| `([a-z-]+)/` \|", (_ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(mapped) > 5
    assert [name for name in mapped if not (_ROOT / name).is_dir()] == []
