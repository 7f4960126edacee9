"""The committed dashboards as Grafana reads them: identity, variables, and panels that say what they mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

_BOARDS = sorted((Path(__file__).parents[3] / "deploy" / "k8s" / "monitoring" / "dashboards").glob("*.json"))


@pytest.mark.parametrize("board", _BOARDS, ids=lambda board: board.stem)
def test_every_panel_says_what_it_means_and_reads_from_the_chosen_source(board: Path) -> None:
    document = json.loads(board.read_text())
    assert document["uid"] == board.stem
    variables = {entry["name"]: entry for entry in document["templating"]["list"]}
    assert variables.pop("datasource")["type"] == "datasource"
    for name, variable in variables.items():
        assert variable["query"].endswith(f", {name})")
    panels = [panel for panel in document["panels"] if panel["type"] != "row"]
    assert len(panels) > 8
    for panel in panels:
        assert panel["description"]
        assert panel["targets"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
