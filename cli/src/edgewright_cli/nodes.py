"""`edgewright nodes`: what each node runs and measures."""

from typing import Any

import typer

from edgewright_cli.cluster import ClusterError, Kubeconfig, opened, read_as
from edgewright_cli.output import JsonFlag, print_json, print_table, sentences, tell_error
from edgewright_contract.edgenode import EdgeNodeStatus, ModelStatus

COLUMNS = ("NODE", "CLASS", "MODEL", "VERSION", "VARIANT", "STATE", "REASON", "P95 ms")


def nodes(kubeconfig: Kubeconfig = None, json_output: JsonFlag = False) -> None:
    """What each node runs and measures; exit code 1 where a node's object cannot be read, after all others are shown.

    Example: edgewright nodes --json
    """
    rows, unread = [], []
    with sentences(ClusterError), opened(kubeconfig) as cluster:
        for item in cluster.edge_nodes():
            try:
                rows += node_rows(item)
            except ClusterError as error:
                unread.append(str(error))
    for sentence in unread:
        tell_error(sentence)
    if json_output:
        print_json({"nodes": rows, "unread": unread})
    else:
        print_table(COLUMNS, map(_shown, rows))
    if unread:
        raise typer.Exit(1)


def node_rows(item: dict[str, Any]) -> list[dict[str, Any]]:
    """One flat row for each model of an EdgeNode; one without a model where it has none.

    Raises:
        ClusterError: its status has another form than this version knows.
    """
    status = read_as(EdgeNodeStatus, item, "status")
    node = {"name": item["metadata"]["name"], "hardwareClass": status.hardware.class_ if status.hardware else ""}
    return [node | _row(model) for model in status.models] or [node | {"model": "", "state": "", "reason": ""}]


def _row(model: ModelStatus) -> dict[str, Any]:
    return {
        "model": model.name,
        "release": model.live.version if model.live else None,
        "variant": model.live.variant if model.live else None,
        "state": model.state.value,
        "reason": model.reason,
        "p95Milliseconds": model.figures.p95_microseconds / 1000 if model.figures else None,
    }


def _shown(row: dict[str, Any]) -> tuple[str, ...]:
    p95 = row.get("p95Milliseconds")
    return (
        row["name"],
        row["hardwareClass"],
        row["model"],
        str(row.get("release") or ""),
        row.get("variant") or "",
        row["state"],
        row["reason"],
        f"{p95:.3f}" if p95 else "",
    )
