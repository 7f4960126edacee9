"""The agent put together, from its settings to its end. Imported while the first server starts beside it."""

import asyncio
import functools
import logging
import os
import random
import signal
import ssl
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx2
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from edgewright_agent import hardware, starting, verify
from edgewright_agent.agent import Agent
from edgewright_agent.download import Gateway
from edgewright_agent.kube import Kube
from edgewright_agent.renewal import Renewal
from edgewright_agent.rollout import Tools
from edgewright_agent.saved import StateError
from edgewright_agent.selftest_parent import SelfTest, measured_in_child
from edgewright_agent.settings import AgentSettings, from_environment
from edgewright_agent.starting import CONTROL_SOCKET, PREFIX, Begun
from edgewright_agent.store import Store
from edgewright_agent.supervisor import Server
from edgewright_contract import keys
from edgewright_contract import names as contract_names


async def run(begun: Begun | None) -> int:
    """Run until SIGTERM; the exit code. `begun`: what `starting.ahead` could begin."""
    try:
        settings = from_environment(os.environ)
        root = _root_key(settings.root_key_file)
        store = Store(settings.state_dir)
        begun = begun or starting.hold(settings.state_dir, settings.host, settings.port)
        await _serve(settings, store, begun, root)
    except ValidationError as error:
        for problem in error.errors():
            name = PREFIX + "_".join(str(part) for part in problem["loc"]).upper()
            print(f"edgewright-agent: {name}: {problem['msg']}", file=sys.stderr)
        return 2
    except (StateError, OSError, keys.KeyFormatError) as error:
        print(f"edgewright-agent: {error}", file=sys.stderr)
        return 1
    finally:
        if begun is not None:
            begun.close()
    return 0


async def _serve(settings: AgentSettings, store: Store, begun: Begun, root: ec.EllipticCurvePublicKey) -> None:
    async with (
        _client(settings.api_url, settings.api_ca) as api,
        _client(settings.gateway_url, settings.gateway_ca) as blobs,
    ):
        agent, server = _wired(settings, store, begun, api, blobs, root)
        logging.getLogger(__name__).info("serving on %s port %d", *begun.listener.getsockname()[:2])
        task = asyncio.ensure_future(agent.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            logging.getLogger(__name__).info("ended by a signal")
        finally:
            await server.finish()


def _wired(
    settings: AgentSettings,
    store: Store,
    begun: Begun,
    api: httpx2.AsyncClient,
    blobs: httpx2.AsyncClient,
    root: ec.EllipticCurvePublicKey,
) -> tuple[Agent, Server]:
    server = Server(
        begun.listener,
        settings.state_dir / CONTROL_SOCKET,
        start_seconds=settings.start_seconds,
        hang_seconds=settings.hang_seconds,
        command=starting.server_command(settings.state_dir),
        begun=begun.process,
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
    try:
        verified: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(ca)) if ca else True
    except OSError as error:  # ssl's own sentence names no file
        raise OSError(f"{ca} holds no certificate authority that can be read: {error.strerror or error}") from None
    return httpx2.AsyncClient(base_url=url, verify=verified, timeout=30.0, trust_env=False)


def _root_key(file: Path) -> ec.EllipticCurvePublicKey:
    try:
        return keys.load_public(file.read_bytes())
    except keys.KeyFormatError as error:
        raise keys.KeyFormatError(f"{file}: {error}") from None


def _token(path: Path) -> Callable[[], str]:
    return lambda: path.read_text().strip()
