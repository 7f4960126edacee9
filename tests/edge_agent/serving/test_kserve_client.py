"""KServe's own clients, unmodified, against the real server process.

`kserve` asks for other versions than our lock holds, so it has an environment of its own, made once for these tests.
"""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = "kserve==0.21.0"
WINDOW = 64
SCRIPT = """
import asyncio, json, sys
import httpx
import numpy as np
from kserve import InferInput, InferOutput, InferRequest
from kserve.inference_client import InferenceGRPCClient, InferenceRESTClient, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

url, address, told = sys.argv[1], sys.argv[2], {}
watts = np.stack([np.zeros((1, 64)), np.full((1, 64), 2000)]).astype(np.float32)

def request(binary=False, name="nilm", values=watts):
    tensor = InferInput("watts", list(values.shape), "FP32")
    tensor.set_data_from_numpy(values, binary_data=binary)
    wanted = [RequestedOutput("probabilities", parameters={"binary_data": binary})]
    return InferRequest(name, [tensor], request_id="q7", request_outputs=wanted)

def plain(answer):
    output = answer.outputs[0]
    return [answer.model_name, answer.model_version, answer.id, output.name, output.as_numpy().reshape(2, 3).tolist()]

async def over_http():
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        told["live"] = await client.is_server_live(url)
        told["ready"] = await client.is_server_ready(url)
        told["model"] = [await client.is_model_ready(url, name) for name in ("nilm", "other")]
        for binary in (False, True):
            told[f"binary {binary}"] = plain(await client.infer(url, request(binary), model_name="nilm"))
        body = {"inputs": [{"name": "watts", "datatype": "FP32", "shape": [2, 1, 64], "data": watts.ravel().tolist()}]}
        told["dict"] = plain(await client.infer(url, body, model_name="nilm"))
        for name, asked, model in (("shape", request(values=watts[:, :, :63]), "nilm"), ("other", request(), "other")):
            try:
                await client.infer(url, asked, model_name=model)
            except httpx.HTTPStatusError as error:
                told[name] = [error.response.status_code, str(error)]

async def over_grpc():
    async with InferenceGRPCClient(address) as client:
        told["grpc"] = [await client.is_server_live(), await client.is_server_ready()]
        told["grpc"].append(await client.is_model_ready("nilm"))
        for binary in (False, True):
            told[f"grpc binary {binary}"] = plain(await client.infer(request(binary)))

asyncio.run(over_http())
asyncio.run(over_grpc())
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def kserve_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with KServe's package. Needs nothing but a package index."""
    folder = tmp_path_factory.mktemp("kserve") / "environment"
    local = ROOT / ".tools/uv/bin/uv"  # where make puts it
    uv = shutil.which("uv") or (str(local) if local.exists() else None)
    python = str(folder / "bin/python")
    if uv is None:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", PACKAGE], check=True)
    else:
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", python, PACKAGE], check=True)
    return Path(python)


@pytest.mark.timeout(600)
def test_kserves_clients_work_unmodified(
    kserve_python: Path, start_server: Any, write_release: Any, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    server = start_server(settings={"GRPC_ADDRESS": address})
    server.go_live(write_release(tmp_path / "one", 1, 2.0))
    command = [str(kserve_python), "-c", SCRIPT, f"http://127.0.0.1:{server.port}", address]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    told = json.loads(ended.stdout.splitlines()[-1])
    assert (told["live"], told["ready"], told["model"]) == (True, True, [True, False])
    assert told["grpc"] == [True, True, True]
    for name in ("binary False", "binary True", "dict", "grpc binary False", "grpc binary True"):
        model, version, request_id, output, probabilities = told[name]
        assert (model, output) == ("nilm", "probabilities"), name
        assert version == ("1" if "grpc" in name else None), name  # its REST client reads no version from an answer
        assert request_id == "q7" or name == "dict"
        assert np.argmax(probabilities, 1).tolist() == [0, 1], name
        np.testing.assert_allclose(probabilities[0], np.exp([2, 0, 0]) / np.exp([2, 0, 0]).sum(), rtol=1e-5)
    assert told["shape"][0] == 400
    assert f"[batch, 1, {WINDOW}]" in told["shape"][1]
    assert told["other"][0] == 404
