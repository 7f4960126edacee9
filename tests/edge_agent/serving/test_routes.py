"""Who may push readings: this host, and others that have the token."""

import time
from pathlib import Path

import httpx2
import pytest

from edgewright_agent.serving.inference import Inference, Limits
from edgewright_agent.serving.live import Live
from edgewright_agent.serving.metrics import Metrics
from edgewright_agent.serving.routes import Routes
from edgewright_agent.serving.slots import Slots


@pytest.fixture
def push(tmp_path):
    """Push one reading as a client with this address and header; the answer."""
    metrics = Metrics()
    slots = Slots(metrics)
    live = Live(slots, metrics)

    async def push(address: str, token: bytes | None, **headers: str) -> httpx2.Response:
        file = tmp_path / "token"
        if token is not None:
            file.write_bytes(token)
        routes = Routes(Inference(slots, Limits()), live, metrics, file if token is not None else None)
        transport = httpx2.ASGITransport(routes.app(), client=(address, 5000))
        async with httpx2.AsyncClient(transport=transport, base_url="http://node") as client:
            body = {"readings": [{"t": int(time.time()), "watts": 5}]}
            return await client.post("/v1/readings", json=body, headers=headers)

    return push


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"])
async def test_this_host_needs_no_token(push, address):
    assert (await push(address, None)).json() == {"taken": 1}


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7", "unknown"])
async def test_another_host_needs_the_token(push, address):
    answer = await push(address, None)
    assert answer.status_code == 403
    assert "EDGEWRIGHT_AGENT_READINGS_TOKEN_FILE" in answer.json()["error"]
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic secret"}):
        answer = await push(address, b"secret\n", **headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert (await push(address, b"", authorization="Bearer ")).status_code == 401  # an empty file lets nobody in
    assert (await push(address, b"secret\n", authorization="Bearer secret")).json() == {"taken": 1}


async def test_a_token_file_that_is_gone_is_a_sentence_and_lets_nobody_in(push, monkeypatch):
    def gone(file):
        raise FileNotFoundError(2, "No such file or directory", str(file))

    monkeypatch.setattr(Path, "read_bytes", gone)
    answer = await push("192.0.2.7", b"secret\n", authorization="Bearer secret")
    assert answer.status_code == 503
    assert "EDGEWRIGHT_AGENT_READINGS_TOKEN_FILE" in answer.json()["error"]
