"""`edgewright`: puts the commands together. The heavy parts are imported by the command that needs them."""

import os

import typer

from edgewright_cli import data, demo, evaluate, join, keys, release, rollout, study, sweep, train

REPORT_NOTHING = {"ORT_DISABLE_TELEMETRY": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
"""ONNX Runtime and MLflow report their use to their makers unless told not to."""

HELP = """Train an energy model once, compress it many ways, and let every edge node run the variant that fits it.

Examples:
  edgewright demo
  edgewright train pipelines/recipes/identify.toml --quick
  edgewright nodes
"""
app = typer.Typer(
    name="edgewright",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help=HELP,
)
app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("study")(study.study)
app.command("sweep")(sweep.sweep)
app.command("evaluate")(evaluate.evaluate)
app.add_typer(data.app, name="data")
app.add_typer(keys.app, name="keys")
app.add_typer(release.app, name="release")
app.add_typer(join.app, name="nodes")
rollout.register(app)


def main() -> None:
    """Entry point."""
    for name, value in REPORT_NOTHING.items():
        os.environ.setdefault(name, value)  # before a command imports them
    app()


if __name__ == "__main__":
    main()
