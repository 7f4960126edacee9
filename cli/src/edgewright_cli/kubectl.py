"""`kubectl edgewright …`: the commands that read and steer a cluster, as a kubectl plugin."""

import typer

from edgewright_cli import join, rollout

app = typer.Typer(
    name="kubectl edgewright",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="See what the nodes run and why, and steer rollouts. Example: kubectl edgewright why nilm",
)
app.add_typer(join.app, name="nodes")
rollout.register(app)


def main() -> None:
    """Entry point that kubectl finds on PATH as kubectl-edgewright."""
    app()


if __name__ == "__main__":
    main()
