"""The whole command on made-up days: real processes, real trials, and the release at the end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgewright_cli.main import app

RECIPE = """
name = "tiny"

[data]
min_days = 6

[window]
seconds = 256
hop_seconds = 256

[network]
channels = [16, 16]
kernels = [1, 3]
hidden = 16
bin_seconds = 16

[training]
steps = 4
batch = 8

[compression]
finetune_steps = 2
qat_steps = 2

[sweep]
trials = 2
ways = ["ptq"]
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


def _command(recipe, workspace, *more):
    arguments = ["sweep", str(recipe), "--workspace", str(workspace), "--workers", "1", "--json", *more]
    return [sys.executable, "-m", "edgewright_cli.main", *arguments]


def _environment():
    return {key: value for key, value in os.environ.items() if key != "TRACEBASE_DIR"}


def _run(recipe, workspace, *more):
    told = subprocess.run(
        _command(recipe, workspace, *more), env=_environment(), capture_output=True, text=True, timeout=500
    )
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout.splitlines()[-1]), told.stderr


@pytest.mark.timeout(600)  # three starts of torch, each in two processes
def test_ctrl_c_then_again_ends_with_a_release_of_the_front(recipe, workspace):
    stopped = subprocess.Popen(
        _command(recipe, workspace), env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 400
    while not list((workspace / "stages").glob("*-pruned-*")):  # the first trial is under way
        assert stopped.poll() is None, stopped.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stopped.send_signal(signal.SIGINT)
    _, told = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    assert "finished trials are kept, and the same command goes on from there" in told

    summary, progress = _run(recipe, workspace)
    assert summary["trials"] == 2
    assert "searching" in progress
    names = [row["name"] for row in summary["variants"]]
    assert names[0] == "base-fp32"
    assert set(summary["front"]) <= set(names)
    document = json.loads((Path(summary["release"]) / "release" / "release.json").read_text())
    assert [variant["name"] for variant in document["variants"]] == [
        row["name"] for row in summary["variants"] if row["released"]
    ]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("trials = 2", "trials = 0"), "sweep.trials is 0"),
        (("trials = 2", "highest_ratio = 1.0"), "sweep.highest_ratio is 1.0"),
        (("trials = 2", "lowest_ratio = 0.9"), "lowest_ratio = 0.9 is above highest_ratio = 0.85"),
        (("kernels = [1, 3]", "kernels = [1, 33]"), "the network is longer than the window"),
    ],
)
def test_a_wrong_recipe_is_a_sentence(recipe, tmp_path, change, sentence):
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(recipe.read_text().replace(*change))
    told = CliRunner().invoke(app, ["sweep", str(wrong), "--workspace", str(tmp_path)])
    assert told.exit_code == 1
    assert sentence in " ".join(told.output.split())


def test_a_scheduler_that_is_not_there_is_a_sentence(recipe, workspace, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.delenv("TRACEBASE_DIR", raising=False)
    monkeypatch.setattr("edgewright_pipelines.workers.CONNECT_SECONDS", 0.5)
    arguments = ["sweep", str(recipe), "--workspace", str(workspace), "--trials", "9", "--dask", "tcp://127.0.0.1:9"]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 1
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in " ".join(told.output.split())
