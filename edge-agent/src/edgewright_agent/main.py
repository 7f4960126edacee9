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
from edgewright_agent.rollout import Tools
from edgewright_agent.selftest_parent import measured_in_child
from edgewright_agent.settings import PREFIX, AgentSettings
from edgewright_agent.store import StateError, Store
from edgewright_agent.supervisor import Server, listening_socket
from edgewright_contract import keys

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


def main() -> int:
    """Entry point of `edgewright-agent`."""
    parser = argparse.ArgumentParser(
        prog="edgewright-agent",
        description="Verifies, tests, swaps and serves a release on an edge node.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="follow the EdgeNode of this node and serve")
    commands.add_parser("hardware", help="print what this node is")
    _add_install(commands)
    arguments = parser.parse_args()
    if arguments.command == "hardware":
        print(hardware.measured(None).model_dump_json(by_alias=True, indent=2))
        return 0
    return _install(arguments) if arguments.command == "install" else _serve()


def _add_install(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("install", help="make this a service of the machine")
    parser.add_argument("--systemd", action="store_true", required=True, help="the one kind of service there is")
    parser.add_argument("--root", type=Path, help="write below this folder and start nothing")
    parser.add_argument("--dry-run", action="store_true", help="print what would be written and write nothing")
    parser.add_argument("--node", required=True, help="name of the node")
    parser.add_argument("--api-url", required=True, help="base URL of the API server")
    parser.add_argument("--gateway-url", required=True, help="base URL of the model gateway")
    parser.add_argument("--api-ca", help="PEM file of the API server's authority")
    parser.add_argument("--gateway-ca", help="PEM file of the gateway's authority")
    parser.add_argument("--host", help="address to serve on; 127.0.0.1 without it")
    parser.add_argument("--port", help="port to serve on; 8080 without it")


def _install(arguments: argparse.Namespace) -> int:
    names = ("node", "api_url", "gateway_url", "api_ca", "gateway_ca", "host", "port")
    given = {name.upper(): value for name in names if (value := getattr(arguments, name)) is not None}
    try:
        install.checked(given)
        files = install.planned(given, install.own_command())
        if arguments.dry_run:
            for file in files:
                print(f"# {file.path} ({file.mode:o})\n{file.text}")
            return 0
        for sentence in install.apply(files, arguments.root or Path("/"), start=arguments.root is None):
            print(sentence)
    except install.InstallError as error:
        print(f"edgewright-agent: {error}", file=sys.stderr)
        return 1
    print(f"next: put the root key to {install.CONFIG}/root.pub and the tokens to {install.STATE}/tokens/")
    return 0


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
            await server.stop()
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
        settings.state_dir / "control.sock",
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
    tools = Tools(
        settings,
        store,
        gateway,
        server,
        root,
        verify.Node(settings.node, machine.class_),
        lambda: datetime.now(UTC),
        functools.partial(
            measured_in_child, store=store, seconds=settings.self_test_seconds, address_bytes=settings.self_test_bytes
        ),
    )
    kube = Kube(api, _token(settings.api_token_file), settings.node, rng=rng)
    return Agent(tools, server, kube, machine, rng), server


def _client(url: str, ca: Path | None) -> httpx2.AsyncClient:
    verified: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(ca)) if ca else True
    return httpx2.AsyncClient(base_url=url, verify=verified, timeout=30.0, trust_env=False)


def _token(path: Path) -> Callable[[], str]:
    return lambda: path.read_text().strip()


if __name__ == "__main__":
    sys.exit(main())
