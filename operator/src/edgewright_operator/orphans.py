"""What becomes of an assignment whose CompressedModel is gone, and of one whose policy changed. Pure.

There is no finalizer: the policy stands on the node's entry, so a deletion while the operator was down is seen too.
"""

from collections.abc import Iterable

from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import AssignedModel
from edgewright_operator.decision import Event
from edgewright_operator.facts import ModelFacts, NodeFacts


def left_behind(entry: AssignedModel) -> AssignedModel | None:
    """The entry of a model that is gone: none (Remove), or the node goes on serving, marked (Retain)."""
    if entry.removed_with_model or entry.live is None:
        return None
    return entry.model_copy(update={"orphaned": True, "benchmark": None})


def told(entries: Iterable[AssignedModel]) -> tuple[Event, ...]:
    """One Event for the whole fleet, about the model that is gone; none where no node goes on serving it."""
    kept = [entry.live.version for entry in map(left_behind, entries) if entry is not None and entry.live is not None]
    if not kept:
        return ()
    versions = ", ".join(map(str, sorted(set(kept))[:5]))
    said = f"{len(kept)} nodes go on serving version {versions} (deletionPolicy Retain): nobody moves them any more"
    return (Event(Reason.ORPHANED, f"{said}; an object of the same name takes them up again", warning=True),)


def adopted(model: ModelFacts, nodes: Iterable[NodeFacts]) -> dict[str, AssignedModel]:
    """Entries that do not say what the spec says: the object was made anew, or its deletionPolicy edited."""
    removed = model.removed_with_model
    found = {}
    for node in nodes:
        held = node.assigned
        if held is not None and held.live is not None and (held.orphaned or held.removed_with_model != removed):
            found[node.name] = held.model_copy(update={"orphaned": None, "removed_with_model": removed})
    return found
