"""`edgewright-agent`: reads the settings, wires the parts together and runs until SIGTERM."""

import argparse
import asyncio
import functools
import logging
import os
import random
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx2
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from edgewright_agent import hardware, install, verify
from edgewright_agent.agent import Agent
from edgewright_agent.download import Gateway
from edgewright_agent.kube import Kube
from edgewright_agent.renewal import Renewal
from edgewright_agent.rollout import Tools
from edgewright_agent.saved import StateError
from edgewright_agent.selftest_parent import SelfTest, measured_in_child
from edgewright_agent.settings import CONTROL_SOCKET, PREFIX, AgentSettings
from edgewright_agent.store import Store
from edgewright_agent.supervisor import Server, listening_socket
from edgewright_contract import keys
from edgewright_contract import names as contract_names

_EXAMPLES = f"""
settings come from the environment, with the prefix {PREFIX}:
  {PREFIX}NODE=plant-a-1  {PREFIX}STATE_DIR=/var/lib/edgewright
  {PREFIX}API_URL=https://10.0.0.1:6443
  {PREFIX}API_CA=/etc/edgewright/ca.pem  {PREFIX}API_TOKEN_FILE=/run/edgewright/api
  {PREFIX}GATEWAY_URL=https://gateway:8443  {PREFIX}GATEWAY_TOKEN_FILE=/run/edgewright/gateway
  {PREFIX}ROOT_KEY_FILE=/etc/edgewright/root.pub

examples:
  edgewright-agent run          follow the EdgeNode of this node, serve on 127.0.0.1:8080
  edgewright-agent hardware     print what this node is (class, flags, cores) as JSON and end
  edgewright-agent install --systemd --dry-run --node plant-a-1 \\
      --api-url https://10.0.0.1:6443 --gateway-url https://gateway:8443
                                print the unit, the user and the settings that would be written
"""

_INSTALLING = """
examples:
  edgewright-agent install --systemd --join plant-a-1.join.json
                                with the file that `edgewright nodes join plant-a-1` wrote: unit, user, settings, tokens
  edgewright-agent install --systemd --dry-run --node plant-a-1 \\
      --api-url https://10.0.0.1:6443 --gateway-url https://gateway:8443
                                print what would be written and write nothing
"""


def main() -> int:
    """Entry point of `edgewright-agent`."""
    parser = argparse.ArgumentParser(
        prog="edgewright-agent",
        description="Verifies, tests, swaps and serves a release on an edge node.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "run",
        help="follow the EdgeNode of this node and serve",
        epilog="Example: edgewright-agent run (settings are environment variables: edgewright-agent --help)",
    )
    commands.add_parser("hardware", help="print what this node is", epilog="Example: edgewright-agent hardware")
    service = commands.add_parser(
        "install",
        help="make this a service of the machine",
        epilog=_INSTALLING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    install.add_arguments(service)
    arguments = parser.parse_args()
    if arguments.command == "hardware":
        print(hardware.measured(None).model_dump_json(by_alias=True, indent=2))
        return 0
    return install.run(arguments) if arguments.command == "install" else _serve()


def _serve() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    try:
        asyncio.run(_run(AgentSettings()))
    except ValidationError as error:
        for problem in error.errors():
            name = PREFIX + "_".join(str(part) for part in problem["loc"]).upper()
            print(f"edgewright-agent: {name}: {problem['msg']}", file=sys.stderr)
        return 2
    except (StateError, OSError, keys.KeyFormatError) as error:
        print(f"edgewright-agent: {error}", file=sys.stderr)
        return 1
    return 0


async def _run(settings: AgentSettings) -> None:
    root = keys.load_public(settings.root_key_file.read_bytes())
    store = Store(settings.state_dir)
    lock = store.lock()
    listener = listening_socket(settings.host, settings.port)
    async with (
        _client(settings.api_url, settings.api_ca) as api,
        _client(settings.gateway_url, settings.gateway_ca) as blobs,
    ):
        agent, server = _wired(settings, store, listener, api, blobs, root)
        logging.getLogger(__name__).info("serving on %s port %d", *listener.getsockname()[:2])
        task = asyncio.ensure_future(agent.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            logging.getLogger(__name__).info("ended by a signal")
        finally:
            await server.finish()
            listener.close()
            os.close(lock)


def _wired(
    settings: AgentSettings,
    store: Store,
    listener: socket.socket,
    api: httpx2.AsyncClient,
    blobs: httpx2.AsyncClient,
    root: ec.EllipticCurvePublicKey,
) -> tuple[Agent, Server]:
    server = Server(
        listener,
        settings.state_dir / CONTROL_SOCKET,
        start_seconds=settings.start_seconds,
        hang_seconds=settings.hang_seconds,
        arguments=("--hold", "--history", str(settings.state_dir / "history")),
    )
    machine = hardware.measured(settings.hardware_class)
    rng = random.Random(f"{settings.node}{os.getpid()}")  # noqa: S311 - spreads load, guards nothing
    gateway = Gateway(
        blobs,
        _token(settings.gateway_token_file),
        deadline=settings.download_seconds,
        min_free_bytes=settings.min_free_bytes,
    )
    self_test = SelfTest(seconds=settings.self_test_seconds, address_bytes=settings.self_test_bytes)
    tools = Tools(
        settings,
        store,
        gateway,
        server,
        root,
        verify.Node(settings.node, machine.class_),
        lambda: datetime.now(UTC),
        functools.partial(measured_in_child, store=store, self_test=self_test),
        self_test.ahead,
    )
    kube = Kube(api, _token(settings.api_token_file), settings.node, rng=rng)
    return Agent(tools, server, kube, machine, rng, _renewal(settings, kube, rng)), server


def _renewal(settings: AgentSettings, kube: Kube, rng: random.Random) -> Renewal | None:
    if settings.service_account is None:
        return None
    files = {settings.api_token_file: None, settings.gateway_token_file: contract_names.GATEWAY_AUDIENCE}
    wall = functools.partial(datetime.now, UTC)
    return Renewal(kube, settings.service_account, files, wall, rng, retry_seconds=settings.retry_seconds)


def _client(url: str, ca: Path | None) -> httpx2.AsyncClient:
    verified: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(ca)) if ca else True
    return httpx2.AsyncClient(base_url=url, verify=verified, timeout=30.0, trust_env=False)


def _token(path: Path) -> Callable[[], str]:
    return lambda: path.read_text().strip()


if __name__ == "__main__":
    sys.exit(main())
