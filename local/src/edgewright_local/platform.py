"""The parts of Edgewright as processes beside the control plane: gateway, operator, agents, each with its own token."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx2

from edgewright_contract import names
from edgewright_local.control_plane import ControlPlane
from edgewright_local.credentials import write_private
from edgewright_local.ports import free_ports
from edgewright_local.processes import ManagedProcess, ProcessSpec

READY_SECONDS = 60.0
TOKEN_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Part:
    """A running part and where it answers."""

    process: ManagedProcess
    url: str


def start_gateway(plane: ControlPlane, directory: Path, mlflow_url: str, keys: Path) -> Part:
    """The model gateway, which alone reads MLflow's files."""
    port = free_ports(1)[0]
    token = plane.service_account_token(names.NAMESPACE, "gateway", seconds=TOKEN_SECONDS)
    settings = {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "CACHE": str(directory / "gateway-cache"),
        "MLFLOW_URL": mlflow_url,
        "KUBECONFIG": str(plane.kubeconfig_for(token, "gateway")),
        "TRUST_FILE": str(keys / names.TRUST_FILE),
        "ROOT_KEY_FILE": str(keys / "root.pub"),
    }
    command = (sys.executable, "-m", "edgewright_operator.gateway.main")
    return _start("gateway", command, directory, _prefixed("EDGEWRIGHT_GATEWAY_", settings), port, "/healthz")


def start_operator(plane: ControlPlane, directory: Path, mlflow_url: str, gateway_url: str, keys: Path) -> Part:
    """The operator, with the rights of its own ServiceAccount."""
    port = free_ports(1)[0]
    token = plane.service_account_token(names.NAMESPACE, "operator", seconds=TOKEN_SECONDS)
    gateway_token = plane.service_account_token(
        names.NAMESPACE, "operator", audience=names.GATEWAY_AUDIENCE, seconds=TOKEN_SECONDS
    )
    settings = {
        "KUBECONFIG": str(plane.kubeconfig_for(token, "operator")),
        "MLFLOW_URL": mlflow_url,
        "GATEWAY_URL": gateway_url,
        "GATEWAY_TOKEN_FILE": str(write_private(directory / "operator-gateway-token", gateway_token)),
        "PERMIT_KEY_FILE": str(keys / "permit.key"),
        "SINGLE_TENANT": "true",
        "POLL_SECONDS": "2",
        "INTERVAL": "1",
        "METRICS_PORT": str(port),
    }
    command = (sys.executable, "-m", "edgewright_operator.main")
    return _start("operator", command, directory, _prefixed("EDGEWRIGHT_OPERATOR_", settings), port, "/metrics")


def start_agent(plane: ControlPlane, directory: Path, node: str, gateway_url: str, keys: Path) -> Part:
    """The agent of one node, with two tokens bound to that Node."""
    port = free_ports(1)[0]
    home = directory / node
    home.mkdir(parents=True, exist_ok=True)
    api = plane.service_account_token(names.NAMESPACE, "agent", node=node, seconds=TOKEN_SECONDS)
    gateway = plane.service_account_token(
        names.NAMESPACE, "agent", audience=names.GATEWAY_AUDIENCE, node=node, seconds=TOKEN_SECONDS
    )
    settings = {
        "NODE": node,
        "STATE_DIR": "state",  # below `home`, where it runs: the path of a Unix socket in it has at most 107 bytes
        "API_URL": plane.url,
        "API_CA": str(plane.ca),
        "API_TOKEN_FILE": str(write_private(home / "api-token", api)),
        "GATEWAY_URL": gateway_url,
        "GATEWAY_TOKEN_FILE": str(write_private(home / "gateway-token", gateway)),
        "ROOT_KEY_FILE": str(keys / "root.pub"),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "FIGURES_SECONDS": "2",
        "TRIAL_SECONDS": "120",
        "RETRY_SECONDS": "2",
    }
    command = (sys.executable, "-m", "edgewright_agent.main", "run")
    return _start(f"agent-{node}", command, home, _prefixed("EDGEWRIGHT_AGENT_", settings), port, "/healthz")


def _start(
    name: str, command: tuple[str, ...], directory: Path, settings: dict[str, str], port: int, path: str
) -> Part:
    # ONNX Runtime would report its use to its maker, and keep a database for that in the home
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", **settings}
    spec = ProcessSpec(name, command, directory, environment, working_directory=directory)
    process = ManagedProcess.start(spec)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx2.get(f"{url}{path}", timeout=2).status_code < 500
        except httpx2.HTTPError:
            return False

    process.wait_until_ready(answers, READY_SECONDS)
    return Part(process, url)


def _prefixed(prefix: str, settings: dict[str, str]) -> dict[str, str]:
    return {f"{prefix}{key}": value for key, value in settings.items()}
