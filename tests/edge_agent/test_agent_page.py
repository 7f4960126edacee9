"""docs/agent.md names every setting, state and file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgewright_agent import starting, store
from edgewright_agent.settings import AgentSettings
from edgewright_contract.edgenode import ModelState

PAGE = (Path(__file__).parents[2] / "docs" / "agent.md").read_text()
SETTINGS = PAGE.split("## Settings")[1].split("\n## ")[0]


@pytest.mark.parametrize("field", AgentSettings.model_fields)
def test_each_setting_stands_there_with_its_default(field: str) -> None:
    (row,) = [line for line in SETTINGS.splitlines() if re.match(rf"\| .*`{field.upper()}`", line)]
    default = AgentSettings.model_fields[field].default
    if isinstance(default, int | float) and not isinstance(default, bool):
        units = {2 * 1024**3: "2 GiB", 320 * 1024**2: "320 MiB", 128 * 1024**2: "128 MiB", 16 * 1024**2: "16 MiB"}
        assert units.get(int(default), f"{default:g}") in row, row


@pytest.mark.parametrize("word", [*ModelState, store.STATE_FILE, store.FLOORS_FILE, starting.LOCK_FILE])
def test_each_state_and_file_is_explained(word: str) -> None:
    assert f"| `{word}` |" in PAGE
