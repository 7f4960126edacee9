"""The pure planner alone: one decision over many nodes."""

import time
from datetime import UTC, datetime, timedelta

from rollout_fleet.agents import figures
from rollout_fleet.site import KEY, VARIANT, hardware, manifest, release

from edgewright_contract.edgenode import AssignedModel, Assignment, EdgeNodeSpec, Hardware, ModelStatus
from edgewright_contract.release import Release
from edgewright_operator import observe
from edgewright_operator.decide import decide
from edgewright_operator.facts import ModelFacts, NodeFacts, ReleaseFacts
from edgewright_operator.views import EdgeNodeView


def seconds(count: int) -> dict[str, float]:
    """Processor seconds of the first decision about a new release, and of one in the last wave, over `count` nodes."""
    rollout = {"waves": [{"percent": 1}, {"percent": 100}], "soak": "0s", "maxUnavailable": "10%"}
    source = {"registeredModel": "nilm-bench", "alias": "production"}
    spec = {"source": source, "selection": {"variant": VARIANT}, "rollout": rollout}
    item = {"metadata": {"namespace": "bench", "name": "nilm", "generation": 1}, "spec": spec}
    model = observe.model_facts(item)
    assert isinstance(model, ModelFacts)
    now = datetime.now(UTC)
    nodes = [_node(f"node-{index:06}", now) for index in range(count)]
    found = ReleaseFacts(Release.model_validate(release(2)), manifest(2))
    began = time.process_time()
    first = decide(model, found, nodes, now)
    middle = time.process_time()
    status = first.status.model_dump(by_alias=True, exclude_none=True, mode="json")
    later = observe.model_facts(item | {"status": status})
    assert isinstance(later, ModelFacts)
    again = time.process_time()
    decide(later, found, nodes, now + timedelta(seconds=5), 5.0)
    return {"first": middle - began, "next": time.process_time() - again}


_SPEC_LIVE = Assignment(version=1, sequence=1_700_000_001, manifest=manifest(1), variant=VARIANT)
_ASSIGNED = AssignedModel(name=KEY, registered_model="nilm-bench", live=_SPEC_LIVE)
_SERVED = {"version": 1, "manifest": manifest(1), "variant": VARIANT}
_STATUS = ModelStatus.model_validate(
    {"name": KEY, "state": "Live", "target": manifest(1), "live": _SERVED, "figures": figures(manifest(1))}
)
_HARDWARE = Hardware.model_validate(hardware())


def _node(name: str, now: datetime) -> NodeFacts:
    spec = EdgeNodeSpec(models=[_ASSIGNED])
    view = EdgeNodeView(name, "1", name, {"site": "plant-a"}, ("u",), spec, _HARDWARE, (_STATUS,))
    return observe.node_facts(view, KEY, {name: now}, now, 900.0)
