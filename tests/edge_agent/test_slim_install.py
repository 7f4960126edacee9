"""A fresh environment from the agent's package alone: no training stack, no cluster client, and it serves."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from edgewright_contract import keys

ROOT = Path(__file__).parents[2]
NAME = "default/nilm"
ABSENT = ("torch", "mlflow", "kopf", "kubernetes", "pandas", "scipy", "onnx", "typer", "grpc", "edgewright_pipelines")


async def _with_a_release(world: Any) -> None:
    agent, _ = world.agent()
    await agent.start()
    assert await agent.once(world.spec(world.published.release(1)))


@pytest.mark.timeout(600)
def test_a_slim_environment_serves_what_it_finds_on_disk_with_no_network(
    world: Any, environment_with: Callable[..., Path], tmp_path: Path
) -> None:
    asyncio.run(_with_a_release(world))
    python = environment_with(tmp_path / "environment", str(ROOT / "contract"), str(ROOT / "edge-agent"))
    find = "import importlib.util as u, sys; print([m for m in sys.argv[1:] if u.find_spec(m)])"
    present = subprocess.run([python, "-I", "-c", find, *ABSENT], capture_output=True, text=True, check=True)
    assert present.stdout == "[]\n"

    server = [python, "-m", "edgewright_agent.serving", "--fd", "0", "--control", str(tmp_path / "c")]
    wish = {"EDGEWRIGHT_AGENT_GRPC_ADDRESS": "127.0.0.1:8081"}
    refused = subprocess.run(server, env=wish, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "needs the extra edgewright-agent[grpc]" in refused.stderr

    (tmp_path / "token").write_text("t")
    (tmp_path / "root.pub").write_bytes(keys.public_pem(world.published.root.public_key()))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"NODE": "n", "STATE_DIR": world.folder, "API_URL": "https://127.0.0.1:1", "PORT": port}
    settings |= {"GATEWAY_URL": "https://127.0.0.1:1", "ROOT_KEY_FILE": tmp_path / "root.pub"}
    settings |= dict.fromkeys(("API_TOKEN_FILE", "GATEWAY_TOKEN_FILE"), tmp_path / "token")
    environment = {**os.environ, **{f"EDGEWRIGHT_AGENT_{name}": str(value) for name, value in settings.items()}}
    running = subprocess.Popen([python.with_name("edgewright-agent"), "run"], env=environment)
    try:
        answer = _answer(port, running)
    finally:
        running.terminate()
        running.wait(20)
    assert answer["model_version"] == "1"
    assert answer["outputs"][0]["shape"] == [1, 2]


def _answer(port: int, running: subprocess.Popen[bytes]) -> dict[str, Any]:
    row = {"name": "watts", "datatype": "FP32", "shape": [1, 1, 32], "data": [1.0] * 32}
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and running.poll() is None:
        try:
            answer = httpx2.post(f"http://127.0.0.1:{port}/v2/models/nilm/infer", json={"inputs": [row]}, timeout=60)
            assert answer.status_code == 200, answer.text
            return dict(answer.json())
        except httpx2.ConnectError:
            time.sleep(0.1)
    raise AssertionError(f"it does not serve; it ended with {running.poll()}")
