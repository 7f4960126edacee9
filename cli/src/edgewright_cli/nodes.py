"""`edgewright nodes`: what each node runs and measures."""

from typing import Any

from rich.table import Table

from edgewright_cli.cluster import ClusterError, Kubeconfig, opened
from edgewright_cli.output import JsonFlag, out, print_json, sentences
from edgewright_contract.edgenode import EdgeNodeStatus


def node_rows(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One flat row for each node and model."""
    rows = []
    for item in items:
        status = EdgeNodeStatus.model_validate(item.get("status") or {})
        hardware = status.hardware.class_ if status.hardware else ""
        name = item["metadata"]["name"]
        if not status.models:
            rows.append({"name": name, "hardwareClass": hardware, "model": "", "state": "", "reason": ""})
        for model in status.models:
            live = model.live
            rows.append(
                {
                    "name": name,
                    "hardwareClass": hardware,
                    "model": model.name,
                    "release": live.version if live else None,
                    "variant": live.variant if live else None,
                    "state": model.state.value,
                    "reason": model.reason,
                    "p95Milliseconds": model.figures.p95_microseconds / 1000 if model.figures else None,
                }
            )
    return rows


def nodes(kubeconfig: Kubeconfig = None, json_output: JsonFlag = False) -> None:
    """What each node runs and measures.

    Example: edgewright nodes --json
    """
    with sentences(ClusterError), opened(kubeconfig) as cluster:
        rows = node_rows(cluster.edge_nodes())
    if json_output:
        print_json({"nodes": rows})
        return
    table = Table("NODE", "CLASS", "MODEL", "VERSION", "VARIANT", "STATE", "REASON", "P95 ms", box=None)
    for row in rows:
        p95 = row.get("p95Milliseconds")
        table.add_row(
            row["name"],
            row["hardwareClass"],
            row["model"],
            str(row.get("release") or ""),
            row.get("variant") or "",
            row["state"],
            row["reason"],
            f"{p95:.3f}" if p95 else "",
        )
    out.print(table)
