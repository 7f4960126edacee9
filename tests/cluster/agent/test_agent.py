"""A real agent process on the real API server: to Live, killed as it reaches each state, offline, as a service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from edgewright_contract import names
from edgewright_local.ports import free_ports


def test_to_live_then_killed_and_started_offline(node: Any, started: Any) -> None:
    wish = node.published.release(1)
    first = started(node.environment)
    node.assign(wish)  # after the start: the agent waits for its object
    status = node.until(lambda: node.status(1))
    assert status["models"][0]["live"] == {"version": 1, "manifest": wish["manifest"], "variant": "fp32"}
    conditions = {entry["type"]: entry["status"] for entry in status["conditions"]}
    assert conditions == {"Ready": "True", "StorageOk": "True", "TrustOk": "True"}
    assert status["hardware"]["cores"] >= 1
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{names.NAMESPACE}/leases/{node.name}"
    assert node.api.request("GET", lease)["spec"]["renewTime"]
    node.until(lambda: node.serves() == "1")

    first.kill()  # alone: its server must go with it
    first.wait(10)
    node.until(lambda: node.serves() is None)
    second = started(node.offline)
    node.until(lambda: node.serves() == "1")
    assert second.poll() is None


KILLED = """
import os, signal, sys
from edgewright_agent import events, ledger, main
state, apply = sys.argv.pop(1), ledger.Ledger.apply
def then_killed(self, name, event):
    record = apply(self, name, event)
    if record.state == state and not isinstance(event, events.Started | events.Stopped):
        os.kill(os.getpid(), signal.SIGKILL)
    return record
ledger.Ledger.apply = then_killed
sys.argv = ["edgewright-agent", "run"]
main.main()
"""


def test_killed_as_it_reaches_each_state(node: Any, started: Any) -> None:
    node.assign(node.published.release(1))
    agent = started(node.environment)
    node.until(lambda: node.status(1))
    agent.terminate()
    assert agent.wait(20) == 0, "an end that was asked for is a clean one"
    for version, state in enumerate(("Pending", "Fetched", "Verified", "Tested", "Shadow", "Live"), start=2):
        node.assign(node.published.release(version))
        killed = started(node.environment, sys.executable, "-c", KILLED, state)
        assert killed.wait(60) == -signal.SIGKILL, node.log()
        again = started(node.environment)
        node.until(node.serves)
        assert node.serves() in (str(version - 1), str(version)), state
        status = node.until(lambda version=version: node.status(version))
        assert status["models"][0]["previous"]["version"] == version - 1, state
        assert node.serves() == str(version), state
        again.terminate()
        again.wait(20)


@pytest.fixture
def machine() -> Iterator[Path]:
    """A root folder whose name is short: a Unix socket's path may have 107 bytes, with var/lib/edgewright in it."""
    with tempfile.TemporaryDirectory(prefix="ew-") as folder:
        yield Path(folder)


def test_the_settings_of_the_systemd_service_run_the_same_agent(node: Any, started: Any, machine: Path) -> None:
    """What `install --systemd` writes, with the folders of this test in the place of the machine's."""
    root = machine
    url = {"api": node.environment["EDGEWRIGHT_AGENT_API_URL"], "gw": node.environment["EDGEWRIGHT_AGENT_GATEWAY_URL"]}
    given = ["--node", node.name, "--api-url", url["api"], "--gateway-url", url["gw"], "--port", str(node.port)]
    given += ["--api-ca", node.environment["EDGEWRIGHT_AGENT_API_CA"], "--systemd", "--root", str(root)]
    subprocess.run([sys.executable, "-m", "edgewright_agent.main", "install", *given], check=True)
    unit = (root / "etc/systemd/system/edgewright-agent.service").read_text()
    lines = (root / "etc/edgewright/agent.env").read_text().splitlines()
    environment = {name: value for name, _, value in (line.partition("=") for line in lines)}
    for name, value in environment.items():
        if value.startswith(("/var/lib/edgewright", "/etc/edgewright")):
            environment[name] = str(root) + value
    tokens = root / "var/lib/edgewright/tokens"
    tokens.mkdir(parents=True)
    for here, there in (("api", tokens / "api"), ("gateway", tokens / "gateway")):
        there.write_text((node.folder / here).read_text())
    (root / "etc/edgewright/root.pub").write_bytes(node.published.root)
    (command,) = [line.removeprefix("ExecStart=") for line in unit.splitlines() if line.startswith("ExecStart=")]
    agent = started(environment, *command.split())
    node.assign(node.published.release(1))
    node.until(lambda: node.status(1))
    agent.kill()
    agent.wait(10)
    dead = {"EDGEWRIGHT_AGENT_API_URL": "https://127.0.0.1:1", "EDGEWRIGHT_AGENT_GATEWAY_URL": "http://127.0.0.1:1"}
    started({**environment, **dead}, *command.split())
    node.until(lambda: node.serves() == "1")


def test_grpc_answers_under_the_supervisor_and_again_after_its_server_died(node: Any, started: Any) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    agent = started({**node.environment, "EDGEWRIGHT_AGENT_GRPC_ADDRESS": address})
    watts = triton.InferInput("watts", [1, 1, 64], "FP32")
    watts.set_data_from_numpy(np.ones((1, 1, 64), np.float32))

    def version() -> str | None:
        with triton.InferenceServerClient(address) as client:
            try:
                return str(client.infer("nilm", [watts]).get_response().model_version)
            except InferenceServerException:
                return None

    for wanted in (1, 2):
        node.assign(node.published.release(wanted))
        node.until(lambda wanted=wanted: node.status(wanted))
        node.until(lambda wanted=wanted: version() == str(wanted))
    (server,) = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    os.kill(int(server), signal.SIGKILL)
    node.until(lambda: version() == "2")
    assert server not in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
