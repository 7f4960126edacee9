"""Beside publishing: the run in MLflow with the recipe, each variant's figures, and the plots that people look at."""

import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from edgewright_pipelines import handover, plots, publish
from edgewright_pipelines.flow import Result


def log(client: MlflowClient, result: Result) -> str:
    """Log a finished run; returns its id. Synthetic data logs sizes and times, and no score."""
    run_id = publish.start_run(client, name=result.recipe.name)
    with publish.failing(client, run_id):
        _log(client, run_id, result)
        client.set_terminated(run_id)
    return run_id


def _log(client: MlflowClient, run_id: str, result: Result) -> None:
    recipe = result.recipe
    params = {
        "recipe": recipe.name,
        "recipe_digest": recipe.digest(),
        "data_digest": result.data_digest,
        "synthetic": str(result.synthetic),
        "seed": str(recipe.seed),
        "steps": str(recipe.training.steps),
        "window_seconds": str(recipe.window.seconds),
        "split": recipe.split.by.value,
    }
    losses = [Metric("train_loss", point.loss, 0, point.step) for point in result.history][-1000:]
    client.log_batch(run_id, metrics=losses, params=[Param(key, value) for key, value in params.items()])
    client.log_batch(run_id, metrics=_figures(result))
    client.log_text(run_id, "\n".join(handover.audit_of(result)), "audit.md")
    for built in result.variants:
        if not built.verdict.passed:
            client.set_tag(run_id, f"refused.{built.name}", " ".join(built.verdict.reasons))
    with tempfile.TemporaryDirectory() as folder:
        for plot in plots.draw(result, Path(folder)):
            client.log_artifact(run_id, str(plot), "plots")


def _figures(result: Result) -> list[Metric]:
    metrics = []
    for built in result.variants:
        measured = built.measured
        figures = {
            "bytes": measured.bytes,
            "parameters": measured.parameters,
            "macs": measured.macs,
            "p50_microseconds": measured.latency.p50,
            "p95_microseconds": measured.latency.p95,
            "parity": built.facts.parity,
            "released": float(built.verdict.passed),
        }
        if built.facts.noise:
            figures["least_layer_decibels"] = min(built.facts.noise.values())
        if measured.latency.cpu is not None:
            figures["cpu_microseconds"] = measured.latency.cpu
        if not result.synthetic:
            scores = measured.scores
            figures |= {"macro_f1": scores.macro_f1, "day_macro_f1": scores.macro_f1_by_day, "bce": scores.bce}
        metrics += [Metric(f"{built.name}/{key}", float(value), 0, 0) for key, value in figures.items()]
    return metrics
