"""`kubectl edgewright why|pause|resume|approve|rollback|history|unquarantine`: read and steer one rollout."""

from typing import Annotated, Any

import typer

from edgewright_cli import explain
from edgewright_cli.cluster import ClusterError, Kubeconfig, opened, read_as
from edgewright_cli.output import JsonFlag, out, print_json, print_table, sentences
from edgewright_contract import names
from edgewright_contract.compressedmodel import CompressedModelSpec
from edgewright_contract.compressedmodel_status import CompressedModelStatus, Outcome
from edgewright_contract.conditions import Reason
from edgewright_contract.digests import short
from edgewright_contract.edgenode import EdgeNodeSpec, EdgeNodeStatus

Name = Annotated[str, typer.Argument(help="The CompressedModel.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n")]


class NothingToDoError(RuntimeError):
    """What was asked for does not fit where the rollout stands: a sentence."""


def why(
    name: Name,
    namespace: Namespace = "default",
    node: Annotated[str | None, typer.Option(help="Only this node's side of it.")] = None,
    kubeconfig: Kubeconfig = None,
    json_output: JsonFlag = False,
) -> None:
    """What was decided, from which values against which limits, with how many samples, and what happens next.

    Examples:
      kubectl edgewright why nilm
      kubectl edgewright why nilm -n site-a --node edge-1
    """
    with sentences(ClusterError), opened(kubeconfig) as cluster:
        found = cluster.compressed_model(namespace, name)
        edge_node = cluster.edge_node(node) if node else None
        lines = explain.model(*_read(found))
        if edge_node is not None:
            lines = [lines[0], *_node_lines(edge_node, f"{namespace}/{name}")]
    if json_output:
        told: dict[str, Any] = {"name": name, "namespace": namespace, "why": lines, "status": found.get("status") or {}}
        print_json(told | ({"node": edge_node.get("status") or {}} if edge_node else {}))
        return
    for line in lines:
        out.print(line)


def history(
    name: Name, namespace: Namespace = "default", kubeconfig: Kubeconfig = None, json_output: JsonFlag = False
) -> None:
    """The last ten rollouts and the manifests in quarantine.

    Example: kubectl edgewright history nilm
    """
    with sentences(ClusterError), opened(kubeconfig) as cluster:
        _, status = _read(cluster.compressed_model(namespace, name))
    if json_output:
        dumped = status.model_dump(by_alias=True, exclude_none=True, mode="json")
        print_json({"history": dumped["history"], "quarantined": dumped["quarantined"]})
        return
    rows = [
        (str(past.version), short(past.manifest), past.outcome, past.reason, past.started, past.ended)
        for past in status.history
    ]
    print_table(("VERSION", "MANIFEST", "OUTCOME", "REASON", "STARTED", "ENDED"), rows)
    for entry in status.quarantined:
        out.print(f"quarantined: {short(entry.manifest)} since {entry.since}: {entry.reason}")


def pause(
    name: Name, namespace: Namespace = "default", kubeconfig: Kubeconfig = None, json_output: JsonFlag = False
) -> None:
    """Move nothing any more, not even back, until `resume`: sets spec.suspend.

    Example: kubectl edgewright pause nilm
    """
    with sentences(ClusterError), opened(kubeconfig) as cluster:
        cluster.edit(namespace, name, {"spec": {"suspend": True}})
    _done(f"{namespace}/{name} is suspended: nothing moves until `kubectl edgewright resume`", json_output)


def resume(
    name: Name, namespace: Namespace = "default", kubeconfig: Kubeconfig = None, json_output: JsonFlag = False
) -> None:
    """Go on after `pause`, or after a gate paused the rollout; the gate judges anew.

    Example: kubectl edgewright resume nilm
    """
    with sentences(ClusterError, NothingToDoError), opened(kubeconfig) as cluster:
        spec, status = _read(cluster.compressed_model(namespace, name))
        if not spec.suspend and status.paused is None:
            raise NothingToDoError(f"{namespace}/{name} is not paused: {_standing(status)}")
        changes: dict[str, Any] = {"spec": {"suspend": False}}
        if status.paused is not None:
            changes["metadata"] = {"annotations": {names.ANNOTATION_RESUME: status.paused.since}}
        cluster.edit(namespace, name, changes)
    _done(f"{namespace}/{name} goes on", json_output)


def approve(
    name: Name, namespace: Namespace = "default", kubeconfig: Kubeconfig = None, json_output: JsonFlag = False
) -> None:
    """Let the wave begin that waits for approval, of the release and the spec that you see now.

    It needs `update` on compressedmodels/approval (ClusterRole edgewright-approver).

    Example: kubectl edgewright approve nilm
    """
    with sentences(ClusterError, NothingToDoError), opened(kubeconfig) as cluster:
        found = cluster.compressed_model(namespace, name)
        _, status = _read(found)
        ready, waits = explain.standing(status), Reason.WAITING_FOR_APPROVAL
        if ready is None or ready.reason != waits or status.release is None or status.wave is None:
            raise NothingToDoError(f"{namespace}/{name} does not wait for approval: {_standing(status)}")
        wave = status.wave.index + 1 if status.wave.size else 0
        value = f"{status.release.manifest}/{wave}/{found['metadata']['generation']}"
        cluster.edit(namespace, name, {"metadata": {"annotations": {names.ANNOTATION_APPROVE: value}}})
    _done(f"approved: version {status.release.version}, wave {wave + 1} of {status.wave.of}", json_output)


def rollback(
    name: Name,
    to: Annotated[int | None, typer.Option(help="The version to go to; else the last good one before.")] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    json_output: JsonFlag = False,
) -> None:
    """Ask for an older version instead of the alias: sets spec.source.version. One that was good goes out at once.

    Examples:
      kubectl edgewright rollback nilm
      kubectl edgewright rollback nilm --to 7
    """
    with sentences(ClusterError, NothingToDoError), opened(kubeconfig) as cluster:
        spec, status = _read(cluster.compressed_model(namespace, name))
        version = to if to is not None else _before(status)
        if version is None:
            raise NothingToDoError(f"no version was good on {namespace}/{name} before: name one with --to")
        cluster.edit(namespace, name, {"spec": {"source": {"alias": None, "version": version}}})
    alias = f"; back to the alias with spec.source.alias: {spec.source.alias}" if spec.source.alias else ""
    _done(f"{namespace}/{name} asks for version {version} now{alias}", json_output, version=version)


def unquarantine(
    name: Name,
    manifest: Annotated[str, typer.Option(help="The manifest's first digits, where more than one is held.")] = "",
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    json_output: JsonFlag = False,
) -> None:
    """Let a release that failed try again, from its first wave.

    Examples:
      kubectl edgewright unquarantine nilm
      kubectl edgewright unquarantine nilm --manifest 3f2a
    """
    with sentences(ClusterError, NothingToDoError), opened(kubeconfig) as cluster:
        _, status = _read(cluster.compressed_model(namespace, name))
        digits = manifest.removeprefix("sha256:")
        held = [one for one in status.quarantined if one.manifest.removeprefix("sha256:").startswith(digits)]
        if len(held) != 1:
            known = ", ".join(short(entry.manifest) for entry in status.quarantined) or "none"
            raise NothingToDoError(f"{len(held)} manifests fit; in quarantine: {known}. Name one with --manifest")
        value = f"{held[0].manifest}/{held[0].since}"
        cluster.edit(namespace, name, {"metadata": {"annotations": {names.ANNOTATION_UNQUARANTINE: value}}})
    _done(f"manifest {short(held[0].manifest)} may be rolled out again", json_output, manifest=held[0].manifest)


def register(app: typer.Typer) -> None:
    """Put the commands into `edgewright` and into the kubectl plugin."""
    for command in (why, history, pause, resume, approve, rollback, unquarantine):
        app.command(command.__name__)(command)


def _read(found: dict[str, Any]) -> tuple[CompressedModelSpec, CompressedModelStatus]:
    return read_as(CompressedModelSpec, found, "spec"), read_as(CompressedModelStatus, found, "status")


def _node_lines(found: dict[str, Any], key: str) -> list[str]:
    spec, status = read_as(EdgeNodeSpec, found, "spec"), read_as(EdgeNodeStatus, found, "status")
    assigned = next((entry for entry in spec.models if entry.name == key), None)
    told = next((entry for entry in status.models if entry.name == key), None)
    return explain.node(found["metadata"]["name"], status.hardware, assigned, told)


def _before(status: CompressedModelStatus) -> int | None:
    """The good version to go back to: the last good one, or where that is what runs the one before it."""
    if status.last_good is not None and status.last_good != status.release:
        return status.last_good.version
    running = status.release.version if status.release else None
    good = (past.version for past in status.history if past.outcome is Outcome.PROMOTED and past.version != running)
    return next(good, None)


def _standing(status: CompressedModelStatus) -> str:
    ready = explain.standing(status)
    return f"{ready.reason}: {ready.message}" if ready else "the operator has not seen it yet"


def _done(sentence: str, json_output: bool, **more: Any) -> None:
    if json_output:
        print_json({"done": sentence, **more})
    else:
        out.print(sentence)
