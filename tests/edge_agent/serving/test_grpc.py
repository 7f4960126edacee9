"""The gRPC door of the real server process, asked by an unmodified tritonclient and by clients that mean harm."""

import asyncio
import contextlib
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2 as messages
from tritonclient.utils import InferenceServerException

from edgewright_agent.serving.grpc_backlog import Backlog
from edgewright_agent.serving.inference import BUSY
from edgewright_local.ports import free_ports

WINDOW = 64
MEGABYTE = 1024 * 1024
SERVICE = "/inference.GRPCInferenceService/"


class Door:
    """A server with model nilm live, and where its gRPC door is."""

    def __init__(self, server, address: str) -> None:
        self.server, self.address = server, address
        self.channel = grpc.insecure_channel(address)
        grpc.channel_ready_future(self.channel).result(20)

    def call(self, name: str, data: bytes, seconds: float = 20) -> bytes:
        return self.channel.unary_unary(SERVICE + name)(data, timeout=seconds)

    def refused(self, name: str, data: bytes) -> tuple[grpc.StatusCode, str]:
        """How the call ends; it must not be answered."""
        with pytest.raises(grpc.RpcError) as refused:
            self.call(name, data)
        return refused.value.code(), refused.value.details()


@pytest.fixture
def open_door(start_server, write_release, tmp_path) -> Iterator[Callable[..., Door]]:
    """Start servers with a gRPC door."""
    opened = []

    def start(*extra: str) -> Door:
        address = f"127.0.0.1:{free_ports(1)[0]}"
        server = start_server(*extra, settings={"GRPC_ADDRESS": address})
        server.go_live(write_release(tmp_path / "one", 1, 2.0))
        opened.append(Door(server, address))
        return opened[-1]

    yield start
    for door in opened:
        door.channel.close()


@pytest.fixture(scope="module")
def door(tmp_path_factory, write_release, server_class) -> Iterator[Door]:
    """One for all tests that change nothing in it."""
    folder, address = tmp_path_factory.mktemp("grpc"), f"127.0.0.1:{free_ports(1)[0]}"
    server = server_class(folder, settings={"GRPC_ADDRESS": address})
    server.go_live(write_release(folder / "one", 1, 2.0))
    found = Door(server, address)
    yield found
    found.channel.close()
    server.close()


def request(watts=None, **changes) -> messages.ModelInferRequest:
    """A good request with typed contents, and these fields changed."""
    tensor = {"name": "watts", "datatype": "FP32", "shape": [1, 1, WINDOW]}
    tensor |= {name: changes.pop(name) for name in ("name", "datatype", "shape") if name in changes}
    made = messages.ModelInferRequest(**{"model_name": "nilm", "inputs": [tensor], **changes})
    if "raw_input_contents" not in changes:
        made.inputs[0].contents.fp32_contents.extend([0.0] * WINDOW if watts is None else watts)
    return made


def triton_input(rows: int = 2) -> "triton.InferInput":
    watts = np.stack([np.full((1, WINDOW), 2000.0 * row) for row in range(rows)]).astype(np.float32)
    tensor = triton.InferInput("watts", [rows, 1, WINDOW], "FP32")
    tensor.set_data_from_numpy(watts)
    return tensor


def test_tritonclient_works_unmodified(door):
    with triton.InferenceServerClient(door.address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("nilm")
        assert client.is_model_ready("nilm", "1")
        assert not client.is_model_ready("nilm", "2")
        assert not client.is_model_ready("other")
        assert client.get_server_metadata().name == "edgewright-agent"
        told = client.get_model_metadata("nilm", as_json=True)
        assert told == door.server.http.get("/v2/models/nilm").json() | {
            side: [{**item, "shape": [str(size) for size in item["shape"]]} for item in told_over_http]
            for side in ("inputs", "outputs")
            if (told_over_http := door.server.http.get("/v2/models/nilm").json()[side])
        }
        wanted = [triton.InferRequestedOutput("probabilities")]
        for version in ("", "1"):
            answer = client.infer("nilm", [triton_input()], version, outputs=wanted, request_id="q7")
            response = answer.get_response()
            assert (response.model_version, response.id) == ("1", "q7")
            assert response.parameters["variant"].string_param == "full"
            probabilities = answer.as_numpy("probabilities")
            assert probabilities.argmax(1).tolist() == [0, 1]
            np.testing.assert_allclose(probabilities[0], np.exp([2, 0, 0]) / np.exp([2, 0, 0]).sum(), rtol=1e-5)
        came, done = [], threading.Event()
        client.async_infer("nilm", [triton_input(1)], lambda result, error: (came.append((result, error)), done.set()))
        assert done.wait(20)
        assert came[0][1] is None
        assert came[0][0].as_numpy("probabilities").shape == (1, 3)


async def test_a_client_with_many_calls_on_one_connection_has_none_reset(door):
    async with triton_aio.InferenceServerClient(door.address) as client:
        for _ in range(20):
            answers = await asyncio.gather(*(client.infer("nilm", [triton_input(1)]) for _ in range(48)))
            assert len(answers) == 48


async def test_the_asyncio_client_works_unmodified(door):
    async with triton_aio.InferenceServerClient(door.address) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("nilm")
        assert (await client.get_server_metadata()).name == "edgewright-agent"
        assert (await client.get_model_metadata("nilm")).inputs[0].shape == [-1, 1, WINDOW]
        answers = await asyncio.gather(*(client.infer("nilm", [triton_input(1)]) for _ in range(20)))
        assert {answer.as_numpy("probabilities").shape for answer in answers} == {(1, 3)}


def test_both_forms_give_the_numbers_of_http_each_in_its_own_form(door):
    watts = np.linspace(0, 3000, WINDOW, dtype=np.float32)
    body = {"inputs": [{"name": "watts", "datatype": "FP32", "shape": [1, 1, WINDOW], "data": watts.tolist()}]}
    over_http = np.float32(door.server.http.post("/v2/models/nilm/infer", json=body).json()["outputs"][0]["data"])
    typed = messages.ModelInferResponse.FromString(door.call("ModelInfer", request(watts).SerializeToString()))
    asked = request(raw_input_contents=[watts.tobytes()]).SerializeToString()
    raw = messages.ModelInferResponse.FromString(door.call("ModelInfer", asked))
    assert np.float32(typed.outputs[0].contents.fp32_contents).tobytes() == over_http.tobytes()
    assert not typed.raw_output_contents
    assert list(raw.raw_output_contents) == [over_http.tobytes()]
    assert not raw.outputs[0].HasField("contents")
    assert raw.outputs[0].shape == typed.outputs[0].shape == [1, 3]


def test_the_messages_are_those_of_the_protocol():
    """Field by field as tritonclient has them; a process of its own, because names of messages are global."""
    script = (
        "import json; from edgewright_agent.serving import open_inference_pb2 as m\n"
        "def told(d): return {d.full_name: {f.name: [f.number, f.type] for f in d.fields},"
        " **{k: v for n in d.nested_types for k, v in told(n).items()}}\n"
        "print(json.dumps({k: v for d in m.DESCRIPTOR.message_types_by_name.values() for k, v in told(d).items()}))"
    )
    ours = json.loads(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
    pool = messages.ModelInferRequest.DESCRIPTOR.file.pool
    assert len(ours) > 20
    for name, fields in ours.items():
        theirs = {field.name: [field.number, field.type] for field in pool.FindMessageTypeByName(name).fields}
        assert fields == {field: theirs[field] for field in fields}, name


NAN = np.full(WINDOW, np.nan, "<f4").tobytes()
GOOD = np.zeros(WINDOW, "<f4").tobytes()


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (request(shape=[1, 1, 63]), "shape"),
        (request(shape=[WINDOW]), "shape"),
        (request(shape=[0, 1, WINDOW]), "shape"),
        (request(shape=[-1, 1, WINDOW]), "shape"),
        (request(shape=[2**62, 1, WINDOW]), "numbers"),
        (request(shape=[2, 1, WINDOW]), "numbers"),
        (request([0.0] * 63), "63"),
        (request([float("nan")] * WINDOW), "NaN"),
        (request([float("inf")] * WINDOW), "NaN"),
        (request(datatype="FP64"), "FP32"),
        (request(name="volts"), "watts"),
        (messages.ModelInferRequest(model_name="nilm"), "one tensor"),
        (request(outputs=[{"name": "other"}]), "output"),
        (request(outputs=[{"name": "probabilities"}] * 2), "output"),
        (
            request(outputs=[{"name": "probabilities", "parameters": {"classification": {"int64_param": 1}}}]),
            "classification",
        ),
        (request(id="x" * 257), "256"),
        (request(raw_input_contents=[NAN]), "NaN"),
        (request(raw_input_contents=[GOOD[:-1]]), "255"),
        (request(raw_input_contents=[GOOD, GOOD]), "one raw_input_contents"),
        (request(raw_input_contents=[b""]), "256 bytes; 0"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(door, asked, sentence):
    code, details = door.refused("ModelInfer", asked.SerializeToString())
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert sentence in details
    assert details.endswith(".")
    door.call("ModelInfer", request().SerializeToString())


def test_two_forms_at_once_and_other_numbers_are_refused(door):
    both = request()
    both.raw_input_contents.append(GOOD)
    wrong = request([])
    wrong.inputs[0].contents.fp64_contents.extend([0.0] * WINDOW)
    for asked, sentence in ((both, "both contents and raw"), (wrong, "fp64_contents")):
        code, details = door.refused("ModelInfer", asked.SerializeToString())
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert sentence in details


def test_what_is_not_there_is_told(door):
    for name, asked in (
        ("ModelInfer", request(model_name="other")),
        ("ModelInfer", request(model_version="9")),
        ("ModelMetadata", messages.ModelMetadataRequest(name="other")),
        ("ModelMetadata", messages.ModelMetadataRequest(name="nilm", version="x" * 1000)),
    ):
        code, details = door.refused(name, asked.SerializeToString())
        assert code is grpc.StatusCode.NOT_FOUND
        assert len(details) < 200
    assert door.refused("RepositoryIndex", b"")[0] is grpc.StatusCode.UNIMPLEMENTED
    with triton.InferenceServerClient(door.address) as client, pytest.raises(InferenceServerException) as refused:
        client.infer("nilm", [triton_input(1)], compression_algorithm="gzip")
    assert refused.value.status() == "StatusCode.UNIMPLEMENTED"


def test_random_bytes_are_answered_or_refused_as_bad(door):
    random, codes, sentences = np.random.default_rng(1), set(), set()
    seeds = [request().SerializeToString(), request(raw_input_contents=[GOOD]).SerializeToString()]
    for index in range(3000):
        data = bytearray(seeds[index % 2])
        for _ in range(int(random.integers(1, 4))):
            place = int(random.integers(0, 60) if random.integers(0, 2) else random.integers(0, len(data)))
            match int(random.integers(0, 3)):
                case 0:
                    data[place % len(data)] = int(random.integers(0, 256))
                case 1:
                    del data[place : place + int(random.integers(1, 5))]
                case 2:
                    data[place:place] = random.bytes(int(random.integers(0, 9)))
        try:
            door.call("ModelInfer", bytes(data))
            codes.add("OK")
        except grpc.RpcError as refused:
            codes.add(refused.code().name)
            sentences.add(refused.details())
    assert codes == {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}
    assert [sentence for sentence in sentences if not sentence.endswith(".")] == []


def test_what_is_too_large_is_refused_before_it_is_held(door):
    before = door.server.rss()
    for megabytes in (1, 32):
        data = request(raw_input_contents=[b"\0" * (megabytes * MEGABYTE)]).SerializeToString()
        assert door.refused("ModelInfer", data)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert door.server.rss() - before < 16 * MEGABYTE


def test_overload_is_unavailable_with_the_time_to_come_back(open_door):
    door = open_door("--max-concurrency", "0")
    with pytest.raises(grpc.RpcError) as refused:
        door.call("ModelInfer", request().SerializeToString())
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(refused.value.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"
    assert 'outcome="shed"} 1.0' in door.server.http.get("/metrics").text


def flood(door: Door, asked: bytes, count: int) -> list[grpc.Call]:
    """So many calls at once: the server stands still while they pile up. Health is asked in the midst of them."""
    channels = [grpc.insecure_channel(door.address, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(7)]
    for channel in channels:
        grpc.channel_ready_future(channel).result(20)
    door.server.process.send_signal(signal.SIGSTOP)
    calls = [
        channels[index % 7].unary_unary(SERVICE + "ModelInfer").future(asked, timeout=20) for index in range(count)
    ]
    time.sleep(0.5)
    door.server.process.send_signal(signal.SIGCONT)
    start = time.perf_counter()
    door.call("ServerLive", b"")
    assert time.perf_counter() - start < 2
    for call in calls:
        call.code()  # waits for it
    for channel in channels:
        channel.close()
    return calls


def test_long_requests_beyond_the_bound_are_shed_and_health_goes_on(open_door):
    rows, bounds = 20_000, ("--max-concurrency", "2", "--max-connections", "64", "--max-body-bytes", str(8 * MEGABYTE))
    door = open_door(*bounds)
    asked = request(shape=[rows, 1, WINDOW], raw_input_contents=[GOOD * rows]).SerializeToString()
    calls = flood(door, asked, 21)
    assert {call.code() for call in calls} == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert {call.details() for call in calls} == {"", BUSY}


def test_short_requests_below_the_bound_wait_for_their_turn_and_health_goes_on(open_door):
    calls = flood(open_door("--max-concurrency", "8", "--max-connections", "64"), request().SerializeToString(), 60)
    assert {call.code() for call in calls} == {grpc.StatusCode.OK}


def test_short_requests_beyond_the_bound_are_shed_with_a_sentence_and_counted(open_door):
    door = open_door("--max-connections", "64")
    calls = flood(door, request().SerializeToString(), 200)
    told = Counter((call.code(), call.details()) for call in calls)
    sentence = "More than 64 calls are under way here; try again in a second."
    shed = told.pop((grpc.StatusCode.RESOURCE_EXHAUSTED, sentence))
    assert list(told) == [(grpc.StatusCode.OK, "")]
    assert told[grpc.StatusCode.OK, ""] >= 64
    assert f'outcome="shed"}} {float(shed)}' in door.server.http.get("/metrics").text
    refused = next(call for call in calls if call.code() is not grpc.StatusCode.OK)
    assert dict(refused.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"


def test_what_a_backlog_holds_beyond_its_bound_is_shed_and_no_more():
    waiting = [70]
    backlog = Backlog(64, lambda: waiting[0])

    def shed(calls: int) -> int:
        found = 0
        for _ in range(calls):
            backlog.arrived()
            found += backlog.sheds()
        return found

    assert shed(7) == 0  # not looked at yet
    assert shed(8) == 6
    waiting[0] = 64
    assert shed(50) == 0


def hpack(*headers: tuple[str, str]) -> bytes:
    """Headers as literals that no table remembers (RFC 7541, 6.2.2)."""
    parts = [bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in headers]
    return b"".join(parts)


INFER_HEAD = hpack(
    (":method", "POST"),
    (":scheme", "http"),
    (":path", SERVICE + "ModelInfer"),
    (":authority", "n"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def test_a_request_that_never_arrives_whole_is_ended(open_door):
    door = open_door("--body-seconds", "1")
    host, port = door.address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
        client.sendall(frame(1, 4, 1, INFER_HEAD) + frame(0, 0, 1, b"\0" + struct.pack(">I", 500) + b"abc"))
        start, told = time.monotonic(), b""
        while b"took longer than 1 s" not in told:
            assert time.monotonic() - start < 5
            told += client.recv(4096)
    assert time.monotonic() - start > 0.8
    door.call("ModelInfer", request().SerializeToString())


def test_calls_whose_requests_never_arrive_count_too(open_door):
    door = open_door("--max-connections", "16")
    host, port = door.address.split(":")
    begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(begin + b"".join(frame(1, 4, 1 + 2 * index, INFER_HEAD) for index in range(20)))
        told = b""
        while told.count(b"More than 16 calls are under way here") < 4:
            told += client.recv(4096)
        assert told.count(b"More than 16") == 4
    for _ in range(1000):  # the connection's end frees them, when the server has heard of it
        with contextlib.suppress(grpc.RpcError):
            assert door.call("ServerLive", b"")
            break
        time.sleep(0.02)
    else:
        pytest.fail("calls are refused though the connection that held others has ended")


def test_connections_have_a_bound(open_door):
    door = open_door("--max-connections", "64")
    host, port = door.address.split(":")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection((host, int(port)), timeout=5)) for _ in range(30)]
        ended = 0
        for client in clients:
            with contextlib.suppress(OSError):
                client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
        for client in clients:
            with contextlib.suppress(OSError):
                client.settimeout(0.5)
                ended += client.recv(100) == b""
        assert ended >= 20


def test_swaps_under_load_fail_no_request(open_door, write_release, tmp_path):
    door = open_door()
    loads = [write_release(tmp_path / "two", 2, -2.0), write_release(tmp_path / "one", 1, 2.0)]
    stop, seen, wrong = time.monotonic() + 3, [], []

    def ask() -> None:
        with triton.InferenceServerClient(door.address) as client:
            while time.monotonic() < stop:
                try:
                    answer = client.infer("nilm", [triton_input(1)])
                except InferenceServerException as error:
                    wrong.append(str(error))
                    continue
                version = answer.get_response().model_version
                if (answer.as_numpy("probabilities")[0, 0] > 0.5) != (version == "1"):
                    wrong.append(version)
                seen.append(version)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    swaps = 0
    while time.monotonic() < stop - 0.3:
        door.server.go_live(loads[swaps % 2])
        swaps += 1
    for thread in threads:
        thread.join()
    assert not wrong
    assert swaps >= 2
    assert set(seen) == {"1", "2"}


def test_both_doors_count_in_the_same_metrics(door):
    def answered() -> float:
        text = door.server.http.get("/metrics").text
        return float(text.partition('edgewright_inferences_total{model="nilm",outcome="ok"} ')[2].split("\n")[0])

    before = answered()
    door.call("ModelInfer", request().SerializeToString())
    assert answered() == before + 1


def listeners(address: str) -> int:
    """How many sockets listen on this port (proc(5), /proc/net/tcp and tcp6; 0A is LISTEN)."""
    port = f":{int(address.rpartition(':')[2]):04X}"
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()]
    return sum(row[1].endswith(port) and row[3] == "0A" for row in rows)


def test_it_goes_on_where_a_former_server_ends(open_door, start_server, write_release, tmp_path):
    """A server that takes over listens on the same address before the former one ends."""
    door = open_door()
    second = start_server(settings={"GRPC_ADDRESS": door.address})
    second.go_live(write_release(tmp_path / "two", 2, -2.0))
    assert listeners(door.address) == 2
    door.server.close()
    answer = messages.ModelInferResponse.FromString(
        door.channel.unary_unary(SERVICE + "ModelInfer")(request().SerializeToString(), timeout=20, wait_for_ready=True)
    )
    assert answer.model_version == "2"


def test_an_address_that_is_taken_is_told_and_tried_again(start_server, write_release, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = start_server(settings={"GRPC_ADDRESS": address})
        server.go_live(write_release(tmp_path / "one", 1, 2.0))
        assert server.http.get("/v2/models/nilm/ready").status_code == 200  # the other door does not wait for it
        time.sleep(0.7)
    found = Door(server, address)
    found.call("ModelInfer", request().SerializeToString())
    found.channel.close()


@pytest.mark.parametrize("address", ["8081", ":8081", "127.0.0.1:0", "127.0.0.1:x", "::1:8081", "127.0.0.1:70000"])
def test_an_address_that_is_none_is_refused_at_the_start(tmp_path, address):
    command = [sys.executable, "-m", "edgewright_agent.serving", "--fd", "0", "--control", str(tmp_path / "c")]
    done = subprocess.run(
        command, env={"EDGEWRIGHT_AGENT_GRPC_ADDRESS": address}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "EDGEWRIGHT_AGENT_GRPC_ADDRESS" in done.stderr
    assert address in done.stderr
