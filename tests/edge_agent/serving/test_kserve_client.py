"""KServe's own clients, unmodified, against the real server process.

`kserve` asks for other versions than our lock holds, so it has an environment of its own, made anew for the test.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright_local.ports import free_ports

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


@pytest.mark.timeout(600)
def test_kserves_clients_work_unmodified(
    environment_with: Callable[..., Path], start_server: Any, write_release: Any, tmp_path: Path
) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    server = start_server(settings={"GRPC_ADDRESS": address})
    server.go_live(write_release(tmp_path / "one", 1, 2.0))
    python = environment_with(tmp_path / "environment", PACKAGE)
    command = [str(python), "-c", SCRIPT, f"http://127.0.0.1:{server.port}", address]
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
