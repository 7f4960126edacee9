"""The command on made-up days: what is committed stays untouched, and a second call computes the rest."""

import json

import pytest
from typer.testing import CliRunner

from edgewright_cli.main import app

NETWORK = """
name = "tiny"
data = {min_days = 6}
window = {seconds = 4096, hop_seconds = 4096}
network = {kind = "study-cnn", channels = [8, 8], kernels = [3, 3], pool = 8, hidden = 16}
training = {steps = 2, batch = 4}
"""

STUDY = """
name = "small"
seeds = [1]
folds = 0
most_frequent = 2
resamples = 20
trees = {trees = 3, hop_seconds = 4096}

[[families]]
name = "tiny"
recipe = "tiny.toml"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "tiny.toml").write_text(NETWORK)
    (tmp_path / "small.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRACEBASE_DIR", raising=False)
    return tmp_path


def _run(*arguments):
    return CliRunner().invoke(app, ["study", *arguments])


def test_cells_are_computed_one_call_after_the_other_and_made_up_ones_stay_apart(folder):
    first = _run("small.toml", "--most", "1", "--json")
    assert first.exit_code == 0, first.output
    told = json.loads(first.stdout.splitlines()[-1])
    assert (told["computed"], told["synthetic"], told["missing"]) == (1, True, ["tiny.day.1.base"])
    second = _run("small.toml")
    assert second.exit_code == 0, second.output
    assert "2 of 2 cells finished" in second.stdout
    assert (folder / ".edgewright" / "study" / "study.html").is_file()
    assert not (folder / "results").exists()
    assert not (folder / "docs").exists()


def test_only_the_named_families_are_computed(folder):
    first = _run("small.toml", "--family", "tiny", "--json")
    assert first.exit_code == 0, first.output
    told = json.loads(first.stdout.splitlines()[-1])
    assert (told["computed"], told["missing"]) == (1, ["trees.day.1.base"])


def test_a_family_that_the_study_lacks_is_a_sentence(folder):
    found = _run("small.toml", "--family", "tree")
    assert found.exit_code == 1
    assert "The study has no family tree; it has trees, tiny." in found.stderr
    assert not (folder / ".edgewright" / "study").exists()


def test_a_wrong_study_is_a_sentence(folder):
    (folder / "small.toml").write_text(STUDY.replace('"tiny.toml"', '"tinny.toml"'))
    found = _run("small.toml")
    assert found.exit_code == 1
    assert "Did you mean tiny.toml?" in found.stderr
    assert "Traceback" not in found.output


def test_ctrl_c_keeps_what_is_finished_and_says_so(folder, monkeypatch):
    from edgewright_pipelines.study import runs

    assert _run("small.toml", "--most", "1").exit_code == 0

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "run", interrupted)
    found = _run("small.toml")
    assert found.exit_code == 130
    assert "1 of 2 cells finished" in found.stdout
