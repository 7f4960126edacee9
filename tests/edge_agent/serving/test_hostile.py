"""Clients that mean harm: refused with a 4xx in bounded memory, while others are served."""

import contextlib
import json
import resource
import socket
import threading
import time

import httpx2
import numpy as np
import pytest

WINDOW = 64
MEGABYTE = 1024 * 1024


@pytest.fixture
def descriptors():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 12_000 if before[1] == resource.RLIM_INFINITY else min(before[1], 12_000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, before[1]))
    yield wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def infer_body(**changes) -> bytes:
    tensor = {"name": "watts", "datatype": "FP32", "shape": [1, 1, WINDOW], "data": [0.0] * WINDOW} | changes
    return json.dumps({"inputs": [tensor]}).encode()


@pytest.mark.parametrize("path", [b"/v2/models/nilm/infer", b"/v1/readings", b"/v2/models/none/infer", b"/healthz"])
@pytest.mark.parametrize("length", [b"content-length: 1073741824", b"transfer-encoding: chunked"])
def test_a_body_of_a_gigabyte_is_refused_before_it_is_held(shared, path, length):
    before, answer = shared.rss(), b""
    head = b"POST %s HTTP/1.1\r\nhost: n\r\ncontent-type: application/json\r\n%s\r\n\r\n" % (path, length)
    piece = b" " * MEGABYTE if b"length" in length else b"%x\r\n%s\r\n" % (MEGABYTE, b" " * MEGABYTE)
    with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as client:
        client.sendall(head)
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                client.sendall(piece)
        with contextlib.suppress(ConnectionError):
            answer = client.recv(1000)
    assert answer[:10] in (b"HTTP/1.1 4",)
    assert shared.rss() - before < 16 * MEGABYTE


def test_ten_thousand_connections_cost_little_and_others_are_served(served, descriptors):
    before, clients = served.rss(), []
    try:
        for index in range(min(10_000, descriptors - 500)):
            client = socket.socket()
            client.settimeout(2)
            client.connect(("127.0.0.1", served.port))
            if index % 3 == 0:
                client.send(b"POST /v2/models/nilm/infer HTTP/1.1\r\n")
            clients.append(client)
        assert len(clients) >= 1000
        assert _answered_within(served.port, 15)  # those that never ask count as idle after a second and make room
        assert served.rss() - before < 32 * MEGABYTE
    finally:
        for client in clients:
            client.close()


def _answered_within(port: int, seconds: float) -> bool:
    """Whether a client that tries again is answered: at the cap a new connection may be closed at once."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx2.TransportError):
            url = f"http://127.0.0.1:{port}/v2/models/nilm/infer"
            if httpx2.post(url, content=infer_body(), trust_env=False, timeout=10).status_code == 200:
                return True
        time.sleep(0.2)
    return False


def test_names_that_clients_invent_make_no_metric(shared):
    before = shared.http.get("/metrics").text
    for index in range(300):
        assert shared.http.post(f"/v2/models/m{index}/infer", content=infer_body()).status_code == 404
        assert shared.http.get(f"/v2/models/nilm/versions/{index + 2}").status_code == 404
        assert shared.http.get(f"/{'x' * index}").status_code in (200, 404)
    after = shared.http.get("/metrics").text
    assert after.count("\n") == before.count("\n")


@pytest.mark.parametrize("path", ["/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/v2/models/..%2f..%2fx", "/\u00e9"])
def test_odd_paths_are_not_found(shared, path):
    assert shared.http.get(path).status_code in (404, 405)


@pytest.mark.parametrize(
    "body",
    [
        infer_body(shape=[WINDOW]),
        infer_body(shape=[1] * 500),
        infer_body(shape=[1, 1, 1.5]),
        infer_body(shape=[10**30, 1, WINDOW]),
        infer_body(data=[float("nan")] * WINDOW),
        infer_body(data=[float("inf")] * WINDOW),
        infer_body(data="x" * 1000),
        infer_body(data={"0": 1}),
        infer_body(parameters={"binary_data_size": 2**63}),
        infer_body(parameters={"binary_data_size": -1}),
        b'{"inputs":' + b"[" * 200_000,
        b'{"inputs":[{"name":"watts","datatype":"FP32","shape":[1,1,64],"data":' + b"[" * 9000 + b"]" * 9000 + b"}]}",
        b'{"id":"\\ud800","inputs":[]}',
    ],
)
def test_odd_bodies_are_bad_requests(shared, body):
    answer = shared.http.post("/v2/models/nilm/infer", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"].endswith(".")


def test_long_requests_let_others_in(served):
    """900 windows at once, from four clients, beside a health check: every answer is right and none waits for all."""
    rows = 900
    data = np.zeros((rows, 1, WINDOW), "<f4").tobytes()
    head = {"inputs": [{"name": "watts", "datatype": "FP32", "shape": [rows, 1, WINDOW]}]}
    head["inputs"][0]["parameters"] = {"binary_data_size": len(data)}
    text = json.dumps(head).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    counts, stop, wrong = {"long": 0, "health": 0}, threading.Event(), []

    def ask_long() -> None:
        with httpx2.Client(base_url=served.http.base_url, timeout=60, trust_env=False) as client:
            while not stop.is_set():
                answer = client.post("/v2/models/nilm/infer", content=text + data, headers=headers)
                if answer.status_code != 200 or len(answer.json()["outputs"][0]["data"]) != 3 * rows:
                    wrong.append(answer.text[:300])
                counts["long"] += 1

    threads = [threading.Thread(target=ask_long) for _ in range(4)]
    for thread in threads:
        thread.start()
    while counts["long"] < 8 or counts["health"] < 20:
        assert served.http.get("/healthz").status_code == 200
        counts["health"] += 1
    stop.set()
    for thread in threads:
        thread.join(60)
    assert wrong == []
