"""What training and a sweep leave in a real MLflow: a variant refused and why, and a run for each trial."""

from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState

from edgewright_pipelines import audit, flow, sweep, sweep_tracking, tracking, train
from edgewright_pipelines.audit import Check, Facts, Finding, Verdict
from edgewright_pipelines.evaluate import Measured
from edgewright_pipelines.latency import Latency
from edgewright_pipelines.recipe import Precision, Recipe
from edgewright_pipelines.scores import Scores
from edgewright_pipelines.windows import WindowSet

DATA = "sha256:" + "0" * 64


@pytest.fixture
def client(mlflow_server):
    return MlflowClient(tracking_uri=mlflow_server.url)


@pytest.fixture
def study(tmp_path):
    return sweep.opened(Recipe.model_validate({"name": "tiny"}), DATA, tmp_path)


def _ended(study, way, values=None, reason=None):
    study.enqueue_trial({"importance": "l2", "scope": "global", "ratio": 0.25, "way": way})
    asked = study.ask()
    sweep.suggest(asked, Recipe.model_validate({"name": "tiny"}).sweep)
    if values:
        asked.set_user_attr(sweep.BCE, 0.5)
        return study.tell(asked, values)
    asked.set_user_attr(sweep.REASON, reason)
    return study.tell(asked, state=TrialState.FAIL)


def test_each_trial_is_a_child_run_with_its_figures_or_its_reason(client, study):
    tracked = sweep_tracking.opened(client, study, "tiny")
    tracked.finished(_ended(study, "qat", values=(0.9, 5000.0, 40.0)))
    tracked.finished(_ended(study, "none", reason="PruningError: no layer"))
    tracked.ended("FINISHED")

    assert client.get_run(tracked.run_id).info.status == "FINISHED"
    children = client.search_runs([tracked.experiment], f"tags.`mlflow.parentRunId` = '{tracked.run_id}'")
    found = {run.info.run_name: run for run in children}
    assert set(found) == {"l2-global-25-int8-qat", "l2-global-25-fp32"}
    done, failed = found["l2-global-25-int8-qat"], found["l2-global-25-fp32"]
    assert done.data.metrics == {"macro_f1": 0.9, "bytes": 5000.0, "p50_microseconds": 40.0, "bce": 0.5}
    assert done.data.params == {"importance": "l2", "scope": "global", "ratio": "0.25", "way": "qat"}
    assert (done.info.status, failed.info.status) == ("FINISHED", "FAILED")
    assert failed.data.tags["reason"] == "PruningError: no layer"


def test_a_resumed_sweep_goes_on_in_its_own_run(client, study):
    first = sweep_tracking.opened(client, study, "tiny")
    first.ended("KILLED")
    again = sweep_tracking.opened(client, study, "tiny")
    assert again.run_id == first.run_id
    assert client.get_run(first.run_id).info.status == "RUNNING"


def _built(name, precision, parent, verdict, **facts):
    classes = ("Fridge", "Kettle")
    scores = Scores(
        4,
        2,
        0.4,
        0.9,
        0.9,
        0.9,
        0.9,
        dict.fromkeys(classes, 0.9),
        {"Fridge": 1.0, "Kettle": 2.0},
        dict.fromkeys(classes, 0.1),
    )
    measured = Measured(4, 1, 1, Latency(50.0, 60.0, 10, cpu=51.0), scores)
    return flow.Built(name, b"onnx", precision, parent, None, measured, Facts(1e-6, **facts), verdict)


def test_a_refused_variant_stands_in_the_run_with_its_reason(client):
    refused = Verdict((Finding(Check.SPEED, "It takes 50.0 us where its FP32 parent base-fp32 takes 40.0 us."),))
    windows = WindowSet(
        np.zeros((4, 16), np.uint16),
        np.array([0, 1, 0, 1], np.int16),
        np.zeros(4, np.int32),
        ("day",),
        ("Fridge", "Kettle"),
    )
    result = flow.Result(
        Recipe.model_validate({"name": "tiny"}),
        ("Fridge", "Kettle"),
        (
            _built("base-fp32", Precision.FP32, None, audit.Verdict()),
            _built("base-int8", Precision.INT8, "base-fp32", refused, noise={"Conv 0": 30.0, "Gemm 1": 21.5}),
        ),
        windows,
        windows,
        DATA,
        False,
        (train.Point(1, 2.0), train.Point(2, 1.0)),
    )
    run = client.get_run(tracking.log(client, result))
    assert run.data.tags["refused.base-int8"].startswith("It takes 50.0 us")
    assert "refused.base-fp32" not in run.data.tags
    assert run.data.metrics["base-int8/released"] == 0.0
    assert run.data.metrics["base-fp32/released"] == 1.0
    assert run.data.metrics["base-int8/least_layer_decibels"] == 21.5
    assert run.data.metrics["base-int8/cpu_microseconds"] == 51.0
    card = Path(client.download_artifacts(run.info.run_id, "audit.md")).read_text()
    assert "**base-int8**: It takes 50.0 us" in card
