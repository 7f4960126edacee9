"""From what is watched to facts: selection, reachability, the part of each EdgeNode that concerns a model. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from edgewright_contract import names
from edgewright_contract.compressedmodel import CompressedModelSpec
from edgewright_contract.compressedmodel_status import CompressedModelStatus
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import AssignedModel, EdgeNodeSpec
from edgewright_contract.models import first_fault
from edgewright_operator.facts import ModelFacts, NodeFacts, SourceProblem
from edgewright_operator.views import EdgeNodeView, NamespaceView

Object = dict[str, Any]


def model_facts(item: Object) -> ModelFacts | SourceProblem:
    """A CompressedModel, or why it cannot be read (the schema refuses such objects, older ones may remain)."""
    metadata = item["metadata"]
    try:
        spec = CompressedModelSpec.model_validate(item.get("spec") or {})
        status = CompressedModelStatus.model_validate(item.get("status") or {})
    except ValidationError as error:
        where = "spec" if error.title == "CompressedModelSpec" else "status"
        return SourceProblem(Reason.INVALID_SPEC, first_fault(error, where))
    return ModelFacts(
        metadata["namespace"],
        metadata["name"],
        metadata.get("generation", 0),
        metadata.get("annotations") or {},
        spec,
        status,
    )


def selected(model: ModelFacts, edge_nodes: Iterable[EdgeNodeView], allowed: Mapping[str, str]) -> list[EdgeNodeView]:
    """EdgeNodes that match the model's selector and the namespace's, and whose spec can be read."""
    wanted = model.spec.node_selector.match_labels.items() | allowed.items()  # both, also where they contradict
    return [node for node in edge_nodes if wanted <= node.labels.items() and node.spec is not None]


def left(key: str, edge_nodes: Iterable[EdgeNodeView], chosen: Iterable[EdgeNodeView]) -> list[EdgeNodeView]:
    """EdgeNodes that have the model `key` without being selected by it any more."""
    kept = {node.name for node in chosen}
    return [node for node in edge_nodes if node.name not in kept and entry_of(node, key) is not None]


def entry_of(node: EdgeNodeView, key: str) -> AssignedModel | None:
    """What the node is assigned of the model `key`."""
    return next((entry for entry in node.spec.models if entry.name == key), None) if node.spec else None


def node_facts(
    node: EdgeNodeView,
    key: str,
    beats: Mapping[str, datetime],
    now: datetime,
    stale_seconds: float,
    *,
    selected: bool = True,
) -> NodeFacts:
    """One EdgeNode as the model `key` sees it."""
    hardware = node.hardware
    override = node.labels.get(names.LABEL_HARDWARE_CLASS)
    if hardware is not None and override:
        hardware = hardware.model_copy(update={"class_": override})
    beat = beats.get(node.name)
    return NodeFacts(
        node.name,
        node.labels,
        beat is not None and (now - beat).total_seconds() < stale_seconds,
        hardware,
        entry_of(node, key),
        next((entry for entry in node.models if entry.name == key), None),
        beat is not None,
        selected,
    )


def selector_of(namespace: NamespaceView | None, *, single_tenant: bool) -> dict[str, str] | None:
    """Labels that a namespace's annotation adds to every selector; none: the namespace selects no node.

    A blank annotation is none: the policy that guards it cannot tell the two apart, and blank must not mean all.
    """
    text = namespace.annotations.get(names.ANNOTATION_NODE_SELECTOR, "") if namespace else ""
    if not text.replace(",", "").strip():
        return {} if single_tenant else None
    pairs = (part.partition("=") for part in text.split(",") if part.strip())
    return {key.strip(): value.strip() for key, _, value in pairs}


def written(node: EdgeNodeView, version: str, spec: EdgeNodeSpec) -> EdgeNodeView:
    """The EdgeNode as our own write left it."""
    return replace(node, version=version, spec=spec)
