"""From the API server's objects to facts: selection, reachability, the part of each EdgeNode that concerns a model."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from edgewright_contract import names
from edgewright_contract.compressedmodel import CompressedModelSpec, CompressedModelStatus
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import EdgeNodeSpec, EdgeNodeStatus
from edgewright_operator.facts import ModelFacts, NodeFacts, SourceProblem

Object = dict[str, Any]


def model_facts(item: Object) -> ModelFacts | SourceProblem:
    """A CompressedModel, or why it cannot be read (the schema refuses such objects, older ones may remain)."""
    metadata = item["metadata"]
    try:
        spec = CompressedModelSpec.model_validate(item["spec"])
        status = CompressedModelStatus.model_validate(item.get("status") or {})
    except ValidationError as error:
        first = error.errors()[0]
        return SourceProblem(Reason.INVALID_SPEC, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    return ModelFacts(
        metadata["namespace"],
        metadata["name"],
        metadata.get("generation", 0),
        metadata.get("annotations") or {},
        spec,
        status,
    )


def heartbeats(leases: Iterable[Object]) -> dict[str, datetime]:
    """Node name → last heartbeat."""
    found = {}
    for lease in leases:
        renewed = (lease.get("spec") or {}).get("renewTime")
        if renewed:
            found[lease["metadata"]["name"]] = datetime.fromisoformat(renewed)
    return found


def selected(model: ModelFacts, edge_nodes: Iterable[Object], allowed: Mapping[str, str]) -> list[Object]:
    """EdgeNodes that match the model's selector and the namespace's."""
    wanted = model.spec.node_selector.match_labels.items() | allowed.items()  # both, also where they contradict
    return [node for node in edge_nodes if wanted <= (node["metadata"].get("labels") or {}).items()]


def node_facts(
    node: Object, key: str, beats: Mapping[str, datetime], now: datetime, stale_seconds: float
) -> NodeFacts:
    """One EdgeNode as the model `key` sees it; what its agent wrote is foreign input and may be unreadable."""
    name = node["metadata"]["name"]
    labels = node["metadata"].get("labels") or {}
    spec = EdgeNodeSpec.model_validate(node.get("spec") or {})
    try:
        status = EdgeNodeStatus.model_validate(node.get("status") or {})
    except ValidationError:
        status = EdgeNodeStatus()
    hardware = status.hardware
    override = labels.get(names.LABEL_HARDWARE_CLASS)
    if hardware is not None and override:
        hardware = hardware.model_copy(update={"class_": override})
    beat = beats.get(name)
    return NodeFacts(
        name,
        labels,
        beat is not None and (now - beat).total_seconds() < stale_seconds,
        hardware,
        next((entry for entry in spec.models if entry.name == key), None),
        next((entry for entry in status.models if entry.name == key), None),
    )


def selector_of(namespace: Object, *, single_tenant: bool) -> dict[str, str] | None:
    """Labels that a namespace's annotation adds to every selector; none: the namespace selects no node."""
    text = (namespace["metadata"].get("annotations") or {}).get(names.ANNOTATION_NODE_SELECTOR)
    if text is None:
        return {} if single_tenant else None
    pairs = (part.partition("=") for part in text.split(",") if part.strip())
    return {key.strip(): value.strip() for key, _, value in pairs}
