"""Beside a sweep: its run in MLflow, and below it one child run for each trial as it ends."""

from dataclasses import dataclass

import optuna
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from optuna.trial import FrozenTrial, TrialState

from edgewright_pipelines import publish, sweep

PARENT = "mlflow_run"  # user attribute of the study: a resumed sweep goes on in its own run
METRICS = ("macro_f1", "bytes", "p50_microseconds")


@dataclass(frozen=True, slots=True)
class Tracked:
    """The sweep's run."""

    client: MlflowClient
    run_id: str
    experiment: str

    def finished(self, trial: FrozenTrial) -> None:
        """One child run: the choice, its figures on the validation side, or why it failed."""
        ended = trial.state is TrialState.COMPLETE
        name = sweep.choice_of(trial).name
        tags = {MLFLOW_PARENT_RUN_ID: self.run_id, "trial": str(trial.number)}
        if not ended:
            tags["reason"] = str(trial.user_attrs.get(sweep.REASON, ""))
        child = self.client.create_run(self.experiment, run_name=name, tags=tags).info.run_id
        params = [Param(key, str(value)) for key, value in trial.params.items()]
        metrics = []
        if ended:
            values = dict(zip(METRICS, trial.values, strict=True)) | {"bce": trial.user_attrs[sweep.BCE]}
            metrics = [Metric(key, value, 0, 0) for key, value in values.items()]
        self.client.log_batch(child, metrics=metrics, params=params)
        self.client.set_terminated(child, "FINISHED" if ended else "FAILED")

    def ended(self, status: str) -> None:
        """FINISHED, FAILED or KILLED."""
        self.client.set_terminated(self.run_id, status)


def opened(client: MlflowClient, study: optuna.Study, name: str) -> Tracked:
    """The run of this study, new or the one that it began with."""
    run_id = study.user_attrs.get(PARENT)
    if run_id is None:
        run_id = publish.start_run(client, name=f"sweep {name}")
        study.set_user_attr(PARENT, run_id)
    else:
        client.update_run(run_id, "RUNNING")
    return Tracked(client, run_id, client.get_run(run_id).info.experiment_id)
