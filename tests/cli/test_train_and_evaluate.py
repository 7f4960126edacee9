import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgewright_cli import data
from edgewright_cli.main import app

runner = CliRunner()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_recipe_file, tracebase_folder):
    workspace = tmp_path_factory.mktemp("workspace")
    told = runner.invoke(
        app,
        ["train", str(tiny_recipe_file), "--data", str(tracebase_folder), "--workspace", str(workspace), "--json"],
    )
    assert told.exit_code == 0, told.output
    return workspace, json.loads(told.stdout.splitlines()[-1])


def _evaluated(workspace, traces, release, *more):
    arguments = ["evaluate", release, "--data", str(traces), "--workspace", str(workspace), "--json", *more]
    told = runner.invoke(app, arguments)
    assert told.exit_code == 0, told.output
    return json.loads(told.stdout.splitlines()[-1])


def test_train_measures_every_variant_and_leaves_a_release(trained):
    _, summary = trained
    names = [row["name"] for row in summary["variants"]]
    assert names == ["base-fp32", "base-int8", "l2-local-50-fp32", "l2-local-50-int8"]
    assert all(row["bytes"] > 0 and row["p50Microseconds"] > 0 and row["bce"] > 0 for row in summary["variants"])
    assert not summary["synthetic"]
    assert (Path(summary["release"]) / "release" / "release.json").is_file()


@pytest.mark.parametrize("reference", ["latest", "nilm-identify/latest", "nilm-identify/1"])
def test_evaluate_finds_what_train_left(trained, tracebase_folder, reference):
    workspace, summary = trained
    found = _evaluated(workspace, tracebase_folder, reference)
    assert found["release"] == summary["release"]
    assert found["variant"] == "base-fp32"
    assert {"macroF1", "dayMacroF1", "accuracy", "bce", "perClass", "windows", "days"} <= found.keys()
    assert found["unknownClasses"] == {}


def test_a_folder_and_a_named_variant_are_scored(trained, tracebase_folder):
    """A network of a few steps may fail the audit anywhere, so the last variant that passed is taken."""
    workspace, summary = trained
    name = [row["name"] for row in summary["variants"] if row["released"]][-1]
    found = _evaluated(workspace, tracebase_folder, summary["release"], "--variant", name)
    assert found["variant"] == name


def test_every_variant_is_in_the_release_or_it_is_said_why_not(trained):
    _, summary = trained
    document = json.loads((Path(summary["release"]) / "release" / "release.json").read_text())
    inside = [variant["name"] for variant in document["variants"]]
    assert inside == [row["name"] for row in summary["variants"] if row["released"]]
    assert all(bool(row["reasons"]) != row["released"] for row in summary["variants"])


def test_classes_that_the_release_does_not_know_are_counted_apart(trained, tracebase_folder, tmp_path):
    workspace, _ = trained
    for trace in tracebase_folder.rglob("*.csv"):
        appliance = "Sauna" if trace.parent.name == "Refrigerator" else trace.parent.name
        target = tmp_path / "complete" / appliance / trace.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(trace)
    days = len(list((tmp_path / "complete" / "Sauna").iterdir()))
    found = _evaluated(workspace, tmp_path, "latest")
    assert found["unknownClasses"] == {"Sauna": days}
    assert "Sauna" not in found["perClass"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evaluate", "nowhere", "--data", "."], "nowhere is no folder"),
        (["evaluate", "no[/x]where", "--data", "."], "no[/x]where is no folder"),
        (["train", "my[data].toml"], "no recipe at my[data].toml"),
        (["evaluate", "nilm-identify/9", "--data", "."], "no release nilm-identify/9"),
        (["evaluate", "latest", "--data", "missing"], "There is no folder"),
        (["evaluate", "latest", "--variant", "tiny", "--data", "TRACES"], "variant tiny is not in the release"),
        (["train", "missing.toml"], "There is no recipe at missing.toml"),
        (["train", "RECIPE", "--mlflow", "http://127.0.0.1:1"], "--mlflow needs --keys"),
        (["train", "RECIPE", "--data", "missing"], "There is no folder"),
    ],
)
def test_a_wrong_argument_is_a_sentence_and_exit_code_1(
    trained, tracebase_folder, tiny_recipe_file, tmp_path, monkeypatch, arguments, sentence
):
    workspace, _ = trained
    monkeypatch.chdir(tmp_path)
    places = {"TRACES": str(tracebase_folder), "RECIPE": str(tiny_recipe_file)}
    told = runner.invoke(app, [*(places.get(word, word) for word in arguments), "--workspace", str(workspace)])
    assert told.exit_code == 1
    assert sentence in " ".join(told.stderr.split())
    assert "Traceback" not in told.stderr


def test_without_traces_the_banner_is_told_and_no_score(tmp_path, tiny_recipe_file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRACEBASE_DIR", raising=False)
    recipe = tmp_path / "untrained.toml"  # what it learns is not looked at
    recipe.write_text(re.sub(r"(steps|finetune_steps) = \d+", r"\1 = 2", tiny_recipe_file.read_text()))
    told = runner.invoke(app, ["train", str(recipe), "--json"])
    assert told.exit_code == 0, told.output
    assert "MADE-UP DATA" in told.stderr
    summary = json.loads(told.stdout.splitlines()[-1])
    assert summary["synthetic"]
    assert {row["macroF1"] for row in summary["variants"]} == {None}


def test_quick_scores_a_part_and_says_what_it_left_out(trained, tracebase_folder, monkeypatch):
    workspace, _ = trained
    whole = _evaluated(workspace, tracebase_folder, "latest")
    monkeypatch.setattr(data, "QUICK_FILES", 20)
    part = _evaluated(workspace, tracebase_folder, "latest", "--quick")
    files = len(list(tracebase_folder.rglob("*.csv")))
    assert (whole["days"], whole["leftOut"]) == (files, [])
    assert part["days"] == 20
    assert part["leftOut"] == [f"{files - 20} trace files; 20 spread evenly over the folder were read"]
