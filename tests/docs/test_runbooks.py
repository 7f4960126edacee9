"""Each alert has its page, which shows the very expression, and the operations page leads there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

_ROOT = Path(__file__).parents[2]
_FOLDER = _ROOT / "docs" / "runbooks"


def _rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((_ROOT / "deploy" / "k8s" / "monitoring" / "rules.yaml").read_text())["groups"]
    return list(group["rules"])


@pytest.mark.parametrize("rule", _rules(), ids=lambda rule: rule["alert"])
def test_its_page_says_when_it_fires_and_what_to_do(rule: dict[str, Any]) -> None:
    page = _ROOT / rule["annotations"]["runbook"]
    text = page.read_text()
    assert text.startswith(f"# {rule['alert']}\n")
    assert f"Severity: {rule['labels']['severity']}. Fires when this holds for {rule['for']}:" in text
    assert f"    {rule['expr']}\n" in text
    for section in ("## Look", "## Do", "## Afterwards"):
        assert section in text
    operations = (_ROOT / "docs" / "operations.md").read_text()
    assert f"`{rule['alert']}` ({rule['labels']['severity']})" in operations
    assert f"({page.relative_to(_ROOT / 'docs')})" in operations


def test_no_page_is_left_of_an_alert_that_is_gone() -> None:
    assert {page.stem for page in _FOLDER.glob("*.md")} == {rule["alert"] for rule in _rules()}
