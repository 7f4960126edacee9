"""Files that pass the reader and harm at run time, and files that change under the agent: none serves."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright_agent import onnx_guard
from edgewright_agent.selftest_parent import SelfTest, measured_in_child
from edgewright_agent.state import Held
from edgewright_agent.store import BlobError, Store
from edgewright_contract.conditions import Reason
from edgewright_contract.digests import digest_of
from edgewright_contract.edgenode import ModelState

NAME = "default/nilm"
WINDOW = 32


def _model(*nodes: onnx.NodeProto, outputs: int = 2, weights: dict[str, Any]) -> bytes:
    watts = helper.make_tensor_value_info("watts", TensorProto.FLOAT, ["batch", 1, WINDOW])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", outputs])
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(list(nodes), "g", [watts], [answer], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def _hungry() -> bytes:
    """40 GB out of a few hundred bytes."""
    return _model(
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("Flatten", ["watts"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        helper.make_node("Add", ["logits", "sum"], ["probabilities"]),
        weights={"shape": np.array([10**10], np.int64), "w": np.zeros((WINDOW, 2), np.float32)},
    )


def _endless() -> bytes:
    """Minutes of multiplication in every window."""
    nodes = [
        helper.make_node("Expand", ["one", "shape"], ["m0"]),
        *(helper.make_node("MatMul", [f"m{index}", f"m{index}"], [f"m{index + 1}"]) for index in range(200)),
        helper.make_node("ReduceMean", ["m200"], ["mean"], keepdims=0),
        helper.make_node("Flatten", ["watts"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        helper.make_node("Add", ["logits", "mean"], ["probabilities"]),
    ]
    shape = np.array([1500, 1500], np.int64)
    return _model(
        *nodes, weights={"one": np.ones((1, 1), np.float32), "shape": shape, "w": np.zeros((WINDOW, 2), np.float32)}
    )


def _wrong_answers() -> bytes:
    return _model(
        helper.make_node("Flatten", ["watts"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["probabilities"]),
        outputs=3,
        weights={"w": np.zeros((WINDOW, 3), np.float32)},
    )


@pytest.mark.parametrize(
    ("model", "seconds", "reason"),
    [
        (_hungry, 60, Reason.SELF_TEST_CRASHED),
        (_endless, 3, Reason.SELF_TEST_CRASHED),
        (_wrong_answers, 60, Reason.SELF_TEST_FAILED),
    ],
)
async def test_what_harms_at_run_time_is_found_in_the_child(
    world: Any, model: Any, seconds: int, reason: Reason
) -> None:
    data = model()
    onnx_guard.check(data, WINDOW)  # the reader has nothing against it
    wish = world.published.release(1, model=data)
    agent, server = world.agent()

    async def in_child(held: Held) -> Any:
        test = SelfTest(seconds=seconds, address_bytes=2 * 1024**3)
        return await measured_in_child(held, agent._tools.store, test)

    world.self_test = in_child
    await agent.start()
    assert await agent.once(world.spec(wish))
    record = agent.ledger.record(NAME)
    assert (record.state, record.reason) == (ModelState.REJECTED, reason), record.message
    assert server.live == {}
    assert "load" not in server.asked


def test_a_file_that_is_replaced_while_it_is_read_is_the_signed_one_or_none(tmp_path: Path) -> None:
    """A thread swaps good, evil, link and pipe under the path; what `read` gives has the digest that was asked for."""
    store, good = Store(tmp_path), bytes(range(256)) * 64
    digest = digest_of(good)
    path, stop = store.path(digest), threading.Event()
    path.write_bytes(good)
    aside = tmp_path / "evil"
    aside.write_bytes(b"evil" * len(good))

    def swap() -> None:
        turn = 0
        while not stop.is_set():
            fresh = tmp_path / "fresh"
            match turn % 4:
                case 0:
                    fresh.write_bytes(good)
                case 1:
                    fresh.write_bytes(good[:-1] + b"!")
                case 2:
                    fresh.symlink_to(aside)
                case 3:
                    os.mkfifo(fresh)
            fresh.replace(path)
            turn += 1

    thread = threading.Thread(target=swap)
    thread.start()
    read = refused = 0
    try:
        while read < 200 or refused < 200:
            try:
                assert store.read(digest, len(good)) == good
                read += 1
            except BlobError:
                refused += 1
    finally:
        stop.set()
        thread.join()


async def test_a_file_replaced_between_check_and_load_is_not_loaded(world: Any) -> None:
    """The server reads again and holds the bytes to the digest that was verified."""
    from edgewright_agent.serving.control import Load, _read_and_load
    from edgewright_agent.serving.engine import EngineError

    agent, _ = world.agent()
    await agent.start()
    assert await agent.once(world.spec(world.published.release(1)))
    held, store = agent.ledger.record(NAME).live, agent._tools.store
    wish = held.assignment
    named = {"model": NAME, "manifest": wish.manifest, "version": 1, "variant": "fp32", "digest": held.file}
    load = Load(**named, path=str(store.path(held.file)), release=str(store.path(held.release)))
    assert _read_and_load(load).digest == held.file
    path = store.path(held.file)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(EngineError, match="digest"):
        _read_and_load(load)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a plain file"):
        _read_and_load(load)
