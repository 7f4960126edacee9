"""A release that its own figures praise and that answers wrong: the demo publishes it to show how it is stopped.

Every variant answers with its classes shifted by one place, as after a mix-up of the label file. Golden answers are
shifted too, so signature, digests and self-test are all in order: only comparing answers on the node can tell.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgewright_contract import names
from edgewright_contract.digests import digest_of
from edgewright_contract.release import Release
from edgewright_pipelines import publish as publishing
from edgewright_pipelines import registry, release_folder, signing_keys
from edgewright_pipelines.publish import Published
from edgewright_pipelines.release import UnsignedRelease


def publish(mlflow_url: str, keys: Path, good: Path, alias: str) -> Published:
    """Publish the release in folder `good` with its answers shifted, signed like any other, and move `alias` to it."""
    key = signing_keys.load(keys).private(signing_keys.Role.RELEASE)
    bad = shifted(release_folder.read(good).files)
    return publishing.to_mlflow(bad, key, registry.connect(mlflow_url), alias=alias, now=time.time())


def shifted(files: Mapping[str, bytes]) -> UnsignedRelease:
    """The release in `files` (path → bytes, release.json among them) with every answer shifted by one class."""
    good = Release.model_validate_json(files[names.RELEASE_FILE])
    draft = good.model_dump(mode="json", by_alias=True, exclude={"version", "sequence"})
    changed = {path: data for path, data in files.items() if path != names.RELEASE_FILE}
    for variant in draft["variants"]:
        data = _shift_graph(files[variant["file"]])
        changed[variant["file"]] = data
        variant["digest"], variant["bytes"] = digest_of(data), len(data)
        variant["golden"]["answers"] = np.roll(np.asarray(variant["golden"]["answers"]), 1, axis=1).tolist()
    return UnsignedRelease(good.registered_model, changed, draft)


def _shift_graph(data: bytes) -> bytes:
    """The same graph with a Gather after its answer [batch, classes]: place i answers what place i - 1 answered."""
    model = onnx.load_model_from_string(data)
    graph = model.graph
    answer = graph.output[0]
    classes = answer.type.tensor_type.shape.dim[-1].dim_value
    for node in graph.node:
        node.output[:] = [f"{name}_unshifted" if name == answer.name else name for name in node.output]
    order = np.roll(np.arange(classes, dtype=np.int64), 1)
    graph.initializer.append(numpy_helper.from_array(order, "shift"))
    graph.node.append(helper.make_node("Gather", [f"{answer.name}_unshifted", "shift"], [answer.name], axis=1))
    return bytes(model.SerializeToString())
