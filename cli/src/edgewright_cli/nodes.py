"""`edgewright nodes` and `why`: what each node runs, and why a rollout stands where it stands."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from edgewright_cli.cluster import ClusterError, Reader
from edgewright_cli.output import JsonFlag, out, print_json, sentences
from edgewright_contract.compressedmodel import CompressedModelStatus
from edgewright_contract.digests import short
from edgewright_contract.edgenode import EdgeNodeStatus

Kubeconfig = Annotated[Path | None, typer.Option(help="Else KUBECONFIG, else ~/.kube/config.")]


def reader(kubeconfig: Path | None) -> Reader:
    """A reader of the cluster that the option or KUBECONFIG names."""
    default = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    return Reader.from_kubeconfig(kubeconfig or Path(default))


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
    with sentences(ClusterError), reader(kubeconfig) as cluster:
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


def why(
    name: Annotated[str, typer.Argument(help="The CompressedModel.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n")] = "default",
    kubeconfig: Kubeconfig = None,
    json_output: JsonFlag = False,
) -> None:
    """What was decided for a CompressedModel, from which values, against which limits.

    Example: kubectl edgewright why nilm
    """
    with sentences(ClusterError), reader(kubeconfig) as cluster:
        found = cluster.compressed_model(namespace, name)
    if json_output:
        print_json({"name": name, "namespace": namespace, "status": found.get("status") or {}})
        return
    for line in explained(CompressedModelStatus.model_validate(found.get("status") or {})):
        out.print(line, markup=False)


def explained(status: CompressedModelStatus) -> list[str]:
    """The status as sentences."""
    lines = []
    for condition in status.conditions:
        lines.append(f"{condition.type} is {condition.status} ({condition.reason}): {condition.message}")
    if status.release:
        lines.append(f"release: version {status.release.version}, manifest {short(status.release.manifest)}")
    for choice in status.hardware_classes:
        lines.append(f"class {choice.name}: {choice.nodes} nodes run {choice.variant or 'nothing'}: {choice.reason}")
    if (wave := status.wave) is not None:
        lines.append(
            f"wave {wave.index + 1} of {wave.of}: {wave.exposed} of {wave.size} nodes exposed,"
            f" soaked {wave.soak_elapsed_seconds} s"
        )
    if status.gate:
        for check in status.gate.checks:
            lines.append(
                f"gate {check.name}: {check.value} against {check.limit} from {check.samples} samples: {check.verdict}"
            )
    if status.counts:
        counts = status.counts
        lines.append(
            f"nodes: {counts.total} selected, {counts.live} live, {counts.updating} updating,"
            f" {counts.failed} failed, {counts.offline} offline"
        )
    for node in status.worst_nodes:
        lines.append(f"node {node.name}: {node.state} {node.reason}: {node.message}")
    for entry in status.quarantined:
        lines.append(f"quarantined {short(entry.manifest)} since {entry.since}: {entry.reason}")
    for past in status.history:
        lines.append(f"version {past.version} {past.outcome} at {past.ended}: {past.reason}")
    return lines or ["The operator has not seen this object yet: is it running?"]
