"""The real server and self-test processes under the real supervisor: what dies, hangs or answers NaN is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright_agent import events
from edgewright_agent.selftest_parent import SelfTest, measured_in_child
from edgewright_agent.starting import listening_socket, server_command
from edgewright_agent.supervisor import Server
from edgewright_contract.conditions import Reason
from edgewright_contract.digests import digest_of
from edgewright_contract.edgenode import ModelState

NAME = "default/nilm"
WINDOW = 32
LIMIT = 5000.0
"""Watts from which the brittle model answers NaN."""


def _brittle() -> bytes:
    weight = numpy_helper.from_array(np.zeros((WINDOW, 2), np.float32), "w")
    limit = numpy_helper.from_array(np.array([LIMIT], np.float32), "limit")
    nodes = [
        helper.make_node("Flatten", ["watts"], ["flat"], axis=1),
        helper.make_node("Sub", ["limit", "flat"], ["left"]),
        helper.make_node("Sqrt", ["left"], ["root"]),
        helper.make_node("MatMul", ["root", "w"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    watts = helper.make_tensor_value_info("watts", TensorProto.FLOAT, ["batch", 1, WINDOW])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "g", [watts], [answer], [weight, limit])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class Node:
    """An agent of this process with a real server process, followed by its own watchdog."""

    def __init__(self, world: Any, agent: Any, server: Server, url: str) -> None:
        self.world, self.agent, self.server, self.url = world, agent, server, url

    async def install(self, wish: Any, *, trial: bool) -> None:
        assert await self.agent.once(self.world.spec(wish))
        assert self.agent.ledger.record(NAME).state is ModelState.LIVE, self.agent.ledger.record(NAME)
        if not trial:
            self.agent.ledger.apply(NAME, events.Ticked(601))

    async def push(self, watts: float, count: int = 6 * WINDOW) -> None:
        """Readings of the last minutes."""
        now = int(time.time()) - count
        readings = [{"t": now + index, "watts": watts} for index in range(count)]
        async with httpx2.AsyncClient(base_url=self.url, timeout=20) as client:
            answer = await client.post("/v1/readings", json={"readings": readings})
        assert answer.status_code == 200, answer.text

    async def serves(self) -> str:
        """Version that answers."""
        async with httpx2.AsyncClient(base_url=self.url, timeout=20) as client:
            return str((await client.get("/v2/models/nilm")).json()["versions"][0])

    async def reverted(self, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.agent.ledger.record(NAME).state is ModelState.REVERTED:
                return
            await asyncio.sleep(0.02)
        pytest.fail(str(self.agent.ledger.record(NAME)))


async def _until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not met():  # noqa: ASYNC110 - many things are waited for, few of them have an event
            await asyncio.sleep(0.02)


@pytest.fixture
async def node(world: Any) -> AsyncIterator[Node]:
    listener = listening_socket("127.0.0.1", 0)
    control = world.folder / "c.sock"
    server = Server(listener, control, start_seconds=60, hang_seconds=10, command=server_command(world.folder))
    world.settings = {"ping_seconds": 0.4, "trial_hang_seconds": 1.0}
    agent = world.wired(server, world.folder)
    child = SelfTest(seconds=60, address_bytes=2 * 1024**3)
    test = functools.partial(measured_in_child, store=agent._tools.store, self_test=child)
    world.self_test = test
    await agent.start()
    watch = asyncio.ensure_future(agent.keeper.watch())
    yield Node(world, agent, server, f"http://127.0.0.1:{listener.getsockname()[1]}")
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    await server.stop()
    listener.close()


async def test_nan_on_own_readings_reverts_and_the_next_install_replays_them(node: Node) -> None:
    await node.install(node.world.published.release(1), trial=False)
    assert node.agent.ledger.record(NAME).reason == Reason.SERVING
    brittle = node.world.published.release(2, model=_brittle(), answers=[[0.5, 0.5]] * 2)
    await node.install(brittle, trial=True)
    assert node.agent.ledger.record(NAME).reason == Reason.NO_HISTORY, "nothing was read yet"
    pid = node.server.pid
    await node.push(LIMIT + 1000)
    await node.reverted()
    record = node.agent.ledger.record(NAME)
    assert (record.reason, record.quarantined) == (Reason.INFERENCE_ERRORS, brittle)
    assert (await node.serves(), node.server.pid) == ("1", pid)

    await node.agent.once(node.world.spec(node.world.published.release(3, model=_brittle(), answers=[[0.5, 0.5]] * 2)))
    record = node.agent.ledger.record(NAME)
    assert (record.state, record.reason) == (ModelState.REJECTED, Reason.INFERENCE_ERRORS)
    assert "own readings" in record.message, "the node's history speaks before the model goes live"
    await node.install(node.world.published.release(4), trial=True)
    assert node.agent.ledger.record(NAME).reason == Reason.SERVING
    figures = (await node.server.pulse(10))["models"][NAME]
    assert figures["replayed"] == figures["effectiveSamples"] >= 6
    assert figures["agreement"] == 1.0


async def test_a_hang_on_trial_reverts_and_waiting_connections_are_answered(node: Node) -> None:
    await node.install(node.world.published.release(1), trial=False)
    await node.install(node.world.published.release(2), trial=True)
    pid = node.server.pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    waiting = asyncio.ensure_future(node.serves())  # accepted by nobody until the next server runs
    await node.reverted()
    assert node.agent.ledger.record(NAME).reason == Reason.HANG
    assert await waiting == "1"
    assert node.server.pid != pid


async def test_two_crashes_on_trial_revert(node: Node) -> None:
    await node.install(node.world.published.release(1), trial=False)
    await node.install(node.world.published.release(2), trial=True)
    for _ in range(2):
        pid = node.server.pid
        assert pid
        os.kill(pid, signal.SIGSEGV)
        assert await node.serves() in ("1", "2")  # the connection waits for the next server
        assert node.server.pid != pid
    await node.reverted()
    assert node.agent.ledger.record(NAME).reason == Reason.CRASH_LOOP
    assert "-11" in node.agent.ledger.record(NAME).message
    assert await node.serves() == "1"


async def test_a_server_that_has_grown_hands_over_and_no_request_fails(node: Node) -> None:
    await node.install(node.world.published.release(1), trial=False)
    pid, answered, stop = node.server.pid, list[int](), asyncio.Event()
    row = {"name": "watts", "datatype": "FP32", "shape": [1, 1, WINDOW], "data": [1.0] * WINDOW}

    async def ask(keep: bool) -> None:
        async with httpx2.AsyncClient(base_url=node.url, timeout=30) as client:
            while not stop.is_set():
                headers = {} if keep else {"Connection": "close"}
                answer = await client.post("/v2/models/nilm/infer", json={"inputs": [row]}, headers=headers)
                answered.append(answer.status_code)

    asking = [asyncio.ensure_future(ask(keep)) for keep in (True, False)]
    await _until(lambda: len(answered) > 4)
    await node.agent.keeper.renew()
    before = len(answered)
    await _until(lambda: len(answered) > before + 4)
    stop.set()
    await asyncio.gather(*asking)
    assert node.server.pid != pid
    assert set(answered) == {200}


async def test_a_successor_that_does_not_start_leaves_the_server_as_it_was(node: Node) -> None:
    await node.install(node.world.published.release(1), trial=False)
    pid, command = node.server.pid, node.server._command
    node.server._command = (sys.executable, "-c", "raise SystemExit(3)")
    await node.agent.keeper.renew()
    assert (node.server.pid, await node.serves()) == (pid, "1")
    node.server._command = command
    assert pid
    os.kill(pid, signal.SIGKILL)
    assert await node.serves() == "1", "and its death is still noticed"


async def test_a_benchmark_is_measured_in_a_child_and_not_repeated(node: Node) -> None:
    wish = node.world.published.release(1)
    await node.install(wish, trial=False)
    other = node.world.published.release(2)
    asked = {"manifest": other.manifest, "variants": ["fp32", "unknown"]}
    for _ in range(2):
        assert await node.agent.once(node.world.spec(wish, benchmark=asked))
        (entry,) = node.agent.ledger.record(NAME).benchmark
    assert 0 < entry.p50_microseconds <= entry.p95_microseconds < 1_000_000
    assert entry.rss_bytes > 10_000_000
    assert entry.digest != node.agent.ledger.record(NAME).live.file
    asked_for: list[str] = []
    serve = node.world.handler
    node.world.handler = lambda request: asked_for.append(request.url.path) or serve(request)
    assert await node.agent.once(node.world.spec(wish, benchmark=asked))
    assert asked_for, "what a release says of a variant is not kept for a measurement"
    assert not any(path.endswith(entry.digest.removeprefix("sha256:")) for path in asked_for), "nor fetched to be known"


async def test_the_self_test_child_is_killed_and_its_parent_lives(world: Any, tmp_path: Path) -> None:
    from edgewright_agent.refusal import Refusal

    nothing = tmp_path / "nothing"
    nothing.write_bytes(b"")
    files = {"model": str(nothing), "golden": str(nothing)}
    digests = {"model_digest": digest_of(b""), "golden_digest": digest_of(b"")}
    job: Any = {**files, **digests, "answers": [[1.0]], "tolerance": 0.1}
    with pytest.raises(Refusal, match="no answer within") as late:
        await SelfTest(seconds=0.01, address_bytes=2 * 1024**3)(job)
    with pytest.raises(Refusal, match="the self-test ended with") as crashed:
        await SelfTest(seconds=30, address_bytes=2 * 1024**3)(job)
    assert {late.value.reason, crashed.value.reason} == {Reason.SELF_TEST_CRASHED}
    with pytest.raises(Refusal, match="the self-test ended with"):
        await SelfTest(seconds=30, address_bytes=32 * 1024**2)(job)
    with pytest.raises(Refusal, match="the files changed"):
        await SelfTest(seconds=30, address_bytes=2 * 1024**3)({**job, "model_digest": digest_of(b"other")})


async def test_a_child_that_was_started_ahead_takes_the_job_or_is_ended(tmp_path: Path) -> None:
    from edgewright_agent.refusal import Refusal

    nothing = tmp_path / "nothing"
    nothing.write_bytes(b"")
    job: Any = {"model": str(nothing), "golden": str(nothing), "model_digest": "", "golden_digest": ""}
    test = SelfTest(seconds=30, address_bytes=2 * 1024**3)
    started: list[Any] = []
    start = test._start

    async def counted() -> Any:
        started.append(await start())
        return started[-1]

    test._start = counted  # type: ignore[method-assign]
    async with test.ahead():
        pass
    assert started[0].returncode == -9, "one that nothing was given to must not stay"
    async with test.ahead():
        for _ in range(2):
            with pytest.raises(Refusal, match="the files changed"):
                await test(job)
    assert [child.returncode for child in started] == [-9, 0, 0], "the second job needs a child of its own"
    async with test.ahead():
        started[-1].kill()
        await started[-1].wait()
        with pytest.raises(Refusal, match="the files changed"):
            await test(job)


async def test_a_server_whose_agent_is_told_to_end_answers_what_it_has_begun(tmp_path: Path) -> None:
    listener = listening_socket("127.0.0.1", 0)
    server = Server(listener, tmp_path / "c.sock", start_seconds=60, hang_seconds=10)
    await server.start()
    address = listener.getsockname()
    try:
        body = b'{"readings": [{"t": 1, "watts": 2}]}'
        reader, writer = await asyncio.open_connection(*address)
        head = b"POST /v1/readings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(body) + body[:5])
        async with httpx2.AsyncClient() as client:  # answered later than the beginning above was read
            assert (await client.get(f"http://{address[0]}:{address[1]}/healthz")).status_code == 200
        ending = asyncio.create_task(server.finish())
        await asyncio.sleep(0.3)
        writer.write(body[5:])
        answer = await asyncio.wait_for(reader.read(), 10)
        await ending
        writer.close()
    finally:
        await server.stop()
        listener.close()
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert answer.endswith(b'{"taken":1}'), answer


def test_a_server_dies_with_a_supervisor_that_is_killed_alone(tmp_path: Path) -> None:
    script = f"""
import asyncio, pathlib
from edgewright_agent.starting import listening_socket
from edgewright_agent.supervisor import Server
async def main():
    listener = listening_socket("127.0.0.1", 0)
    server = Server(listener, pathlib.Path({str(tmp_path / "c.sock")!r}), start_seconds=60, hang_seconds=10)
    await server.start()
    print(server.pid, listener.getsockname()[1], flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    pid, port = map(int, parent.stdout.readline().split())
    parent.kill()
    parent.wait(10)
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while not _free(port) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _free(port)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        assert (Path("/proc") / str(pid) / "stat").read_text().rpartition(") ")[2].startswith("Z")


def _free(port: int) -> bool:
    with socket.socket() as trying:
        try:
            trying.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def test_a_child_whose_parent_ended_before_it_began_does_not_begin() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "edgewright_agent.tied", "1", "edgewright_agent.serving", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "the process that started it has ended" in ended.stderr
