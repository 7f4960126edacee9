import json

from edgewright_pipelines.data.report import DataReport

REPORT = DataReport(
    source="data",
    files=6,
    read=4,
    rows=12_345,
    gap_seconds=7,
    skipped={"b.csv": "is empty; fetch it again", "a.csv": "is binary, not text"},
    dropped={"c": "has the same readings as d"},
    suspected={"TFT/1": "behaves like a PC"},
    days={"Lamp": 1, "Router": 2},
    devices={"Lamp": 1, "Router": 1},
    notes=("The parsed traces could not be kept.",),
)


def test_json_holds_every_count_and_comes_back():
    values = json.loads(REPORT.to_json())
    assert values.pop("traces") == 3
    values["notes"] = tuple(values["notes"])
    assert DataReport(**values) == REPORT


def test_markdown_names_every_file_that_was_not_taken_as_it_is():
    page = REPORT.to_markdown()
    for line in (
        "# Data report: data",
        "| files found | 6 |",
        "| files skipped | 2 |",
        "| traces (one device, one day) | 3 |",
        "| readings | 12,345 |",
        "* `a.csv` is binary, not text.",
        "* `b.csv` is empty; fetch it again.",
        "* `c` has the same readings as d.",
        "* `TFT/1` behaves like a PC.",
        "* The parsed traces could not be kept.",
    ):
        assert line in page.splitlines()
    assert page.index("| Router | 1 | 2 |") < page.index("| Lamp | 1 | 1 |")


def test_markdown_leaves_out_what_is_empty():
    page = DataReport(source="data").to_markdown()
    assert "##" not in page
    assert page.endswith("|\n")
