"""The real server process on an inherited socket, asked by an unmodified tritonclient and over its control socket."""

import json
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import tritonclient.http as triton

from edgewright_contract.digests import digest_of
from edgewright_contract.edgenode import Figures as EdgeNodeFigures

WINDOW = 64
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def body(shape=(1, 1, WINDOW), data=None, **changes) -> dict[str, Any]:
    values = [0.0] * int(np.prod(shape)) if data is None else data
    return {"inputs": [{"name": "watts", "datatype": "FP32", "shape": list(shape), "data": values, **changes}]}


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_tritonclient_works_unmodified(shared, binary_in, binary_out):
    client = triton.InferenceServerClient(f"127.0.0.1:{shared.port}")
    try:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("nilm")
        assert client.get_model_metadata("nilm")["inputs"][0]["shape"] == [-1, 1, WINDOW]
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        watts = np.stack([np.zeros((1, WINDOW)), np.full((1, WINDOW), 2000)]).astype(np.float32)
        tensor = triton.InferInput("watts", [2, 1, WINDOW], "FP32")
        tensor.set_data_from_numpy(watts, binary_data=binary_in)
        wanted = [triton.InferRequestedOutput("probabilities", binary_data=binary_out)]
        for version in ("", "1"):
            answer = client.infer("nilm", [tensor], outputs=wanted, request_id="q7", model_version=version)
            response = answer.get_response()
            assert (response["model_version"], response["id"]) == ("1", "q7")
            probabilities = answer.as_numpy("probabilities")
            assert probabilities.argmax(1).tolist() == [0, 1]
            np.testing.assert_allclose(probabilities[0], np.exp([2, 0, 0]) / np.exp([2, 0, 0]).sum(), rtol=1e-5)
        assert client.infer("nilm", [tensor]).as_numpy("probabilities").shape == (2, 3)
    finally:
        client.close()


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b"\xff\xfe", 400),
        (json.dumps(body(shape=(1, 1, 63))), 400),
        (json.dumps(body(shape=(64,))), 400),
        (json.dumps(body(data=[0.0] * 63)), 400),
        (json.dumps(body(data=[float("nan")] * 64)), 400),
        (json.dumps(body(data=[None] * 64)), 400),
        (json.dumps(body(data=["1"] * 64)), 400),
        (json.dumps(body(data=[1e300] * 64)), 400),
        (json.dumps(body(data=[10**400] * 64)), 400),
        (json.dumps(body(data=[[1.0], [1.0, 2.0]])), 400),
        (json.dumps(body(data=[3e38] * 64)), 400),
        (json.dumps(body(shape=(0, 1, WINDOW))), 400),
        (json.dumps(body(shape=(-1, 1, WINDOW), data=[])), 400),
        (json.dumps(body(shape=(2**62, 1, WINDOW), data=[])), 400),
        (json.dumps(body(datatype="FP64")), 400),
        (json.dumps(body(name="volts")), 400),
        (json.dumps(body(parameters=3)), 400),
        (json.dumps(body() | {"outputs": [{"name": "other"}]}), 400),
        (json.dumps(body() | {"id": 3}), 400),
        (json.dumps(body() | {"outputs": 3}), 400),
        (b"[" * 100_000, 400),
        (b" " * (1024 * 1024 + 1), 413),
    ],
)
def test_bad_input_is_refused_with_a_sentence(shared, content, status):
    answer = shared.http.post("/v2/models/nilm/infer", content=content)
    if content == json.dumps(body(data=[3e38] * 64)):  # finite watts may still make a finite answer
        assert answer.status_code in (200, 400)
    else:
        assert answer.status_code == status
        assert answer.json()["error"].endswith(".")
    assert shared.http.post("/v2/models/nilm/infer", json=body()).status_code == 200


def test_binary_sizes_and_header_are_checked(shared):
    head = body(parameters={"binary_data_size": 256})
    del head["inputs"][0]["data"]
    text = json.dumps(head).encode()
    post = lambda content, length: shared.http.post(  # noqa: E731
        "/v2/models/nilm/infer", content=content, headers={"Inference-Header-Content-Length": length}
    )
    good = np.zeros(WINDOW, "<f4").tobytes()
    assert post(text + good, str(len(text))).status_code == 200
    for content, length in [
        (text + good[:-1], str(len(text))),
        (text + good + b"x", str(len(text))),
        (text + good, "x"),
        (text + good, "-1"),
        (text, "999999"),
        (text + np.full(WINDOW, np.nan, "<f4").tobytes(), str(len(text))),
    ]:
        answer = post(content, length)
        assert answer.status_code == 400
        assert answer.json()["error"]


def test_unknown_models_versions_and_methods(shared):
    for path in ("/v2/models/other", "/v2/models/nilm/versions/9", "/nothing"):
        assert shared.http.get(path).status_code == 404
        assert shared.http.get(path).json()["error"]
    assert shared.http.get("/v2/models/nilm/infer").status_code == 405


def test_control_refuses_what_does_not_fit(server, write_release, tmp_path):
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
    load = write_release(tmp_path / "one", 1, 2.0)
    assert server.ask({"op": "ping"}) == {"ok": True}
    assert server.http.get("/readyz").status_code == 503
    for change in ({"digest": B}, {"variant": "none"}, {"version": 2}, {"path": "/nonexistent"}, {"slot": "live"}):
        answer = server.ask(load | change)
        assert answer["ok"] is False
        assert answer["error"]
    Path(load["path"]).write_bytes(b"damaged")
    assert "digest" in server.ask(load)["error"]
    assert server.ask({"op": "dance"})["ok"] is False
    assert server.ask({"op": "promote", "model": "home/nilm", "manifest": A})["ok"] is False
    assert server.ask({"op": "figures"}) == {"ok": True, "models": {}}
    assert server.http.get("/healthz").status_code == 200


def test_swap_under_load_fails_no_request(served, write_release, tmp_path):
    loads = [write_release(tmp_path / "two", 2, -2.0), None]
    loads[1] = {**loads[0], "version": 1, "manifest": A}
    one = tmp_path / "one"
    loads[1] |= {"path": str(one / "full.onnx"), "release": str(one / "release.json")}
    loads[1]["digest"] = digest_of((one / "full.onnx").read_bytes())
    stop, seen, wrong = time.monotonic() + 3, [], []

    def client() -> None:
        with httpx2.Client(base_url=served.http.base_url) as http:
            while time.monotonic() < stop:
                answer = http.post("/v2/models/nilm/infer", json=body())
                if answer.status_code != 200:
                    wrong.append(answer.text)
                    continue
                value = answer.json()
                idle = value["outputs"][0]["data"][0] > 0.5
                if idle != (value["model_version"] == "1"):
                    wrong.append(value)
                seen.append(value["model_version"])

    threads = [threading.Thread(target=client) for _ in range(2)]
    for thread in threads:
        thread.start()
    swaps = 0
    while time.monotonic() < stop - 0.3:
        served.go_live(loads[swaps % 2])
        swaps += 1
    for thread in threads:
        thread.join()
    assert not wrong
    assert swaps >= 2
    assert set(seen) == {"1", "2"}


def test_push_makes_snapshots_figures_and_metrics(served, write_release, tmp_path):
    readings = [{"t": 1_700_000_000 + i, "watts": 2000 if i >= 100 else 0} for i in range(200)]
    lines = "\n".join(json.dumps(item) for item in readings[:100])
    kind = {"content-type": "application/x-ndjson"}
    assert served.http.post("/v1/readings", content=lines, headers=kind).json() == {"taken": 100}
    assert served.ask(write_release(tmp_path / "two", 2, 2.0)) == {"ok": True}
    assert served.http.post("/v1/readings", json={"readings": readings[100:]}).json() == {"taken": 100}
    late = {"readings": [{"t": 1_700_000_000 + 300, "watts": 0}]}
    assert served.http.post("/v1/readings", json=late).status_code == 200
    snapshot = served.http.get("/v1/snapshot").json()
    assert {item["state"] for item in snapshot["models"]} == {"Live", "Shadow"}
    assert snapshot["energyTodayJoules"]["kettle"] > 0
    figures = served.ask({"op": "figures"})["models"]["home/nilm"]
    assert figures["variant"] == "full"
    assert figures["samples"] >= 6
    assert figures["agreement"] == 1.0
    assert figures["errors"] == 0
    assert 1 <= figures["effectiveSamples"] < figures["samples"]
    assert figures["p50Microseconds"] > 0
    assert figures["rssBytes"] > 10_000_000
    text = served.http.get("/metrics").text
    assert 'edgewright_model_info{model="nilm",release="1",variant="full"} 1.0' in text
    assert "edgewright_source_gap_seconds_total 100.0" in text
    assert 'edgewright_inferences_total{model="nilm",outcome="ok"}' in text
    assert 'edgewright_agreement_ratio{model="nilm"} 1.0' in text
    assert EdgeNodeFigures.model_validate(figures).samples == figures["samples"]
    assert served.ask({"op": "unload", "model": "home/nilm"}) == {"ok": True}
    assert 'model="nilm"' not in served.http.get("/metrics").text


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b"[]",
        b'{"readings":[{"t":1}]}',
        b'{"readings":[{"t":-1,"watts":1}]}',
        b'{"readings":[{"t":1,"watts":1e9}]}',
        b'{"readings":[{"t":1,"watts":1},{"t":99999999999,"watts":1}]}',
    ],
)
def test_bad_readings_are_refused_whole(shared, content):
    answer = shared.http.post("/v1/readings", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert shared.http.post("/v1/readings", content=content).status_code == 415
    assert shared.http.get("/v1/snapshot").json()["readings"] == []


def test_replay_plays_tracebase_lines(start_server, write_release, tmp_path):
    trace = tmp_path / "trace.csv"
    lines = [f"01/01/2012 00:{i // 60:02}:{i % 60:02};2000;2000" for i in range(600)]
    trace.write_text("\n".join(["damaged", *lines]))
    running = start_server("--replay", str(trace), "--replay-speed", "200")
    running.go_live(write_release(tmp_path / "one", 1, 2.0))
    deadline = time.monotonic() + 15
    while not (found := running.http.get("/v1/snapshot").json()["snapshots"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert found["nilm"]["appliance"] == "kettle"
    assert found["nilm"]["watts"] == 2000


def test_a_missing_trace_is_named(tmp_path):
    command = [
        sys.executable,
        "-m",
        "edgewright_agent.serving",
        "--fd",
        "0",
        "--control",
        str(tmp_path / "c"),
        "--replay",
        "gone.csv",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "gone.csv" in done.stderr


def test_overload_answers_503_with_retry_after(start_server, write_release, tmp_path):
    running = start_server("--max-concurrency", "0")
    running.go_live(write_release(tmp_path / "one", 1, 2.0))
    answer = running.http.post("/v2/models/nilm/infer", json=body())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_the_page_needs_nothing_from_elsewhere(shared):
    page = shared.http.get("/")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http://" not in page.text
    assert "https://" not in page.text
