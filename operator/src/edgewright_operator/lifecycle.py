"""kopf hands over every CompressedModel that appears, changes or goes: raw events, no finalizer, no annotation.

It runs in a thread and a loop of its own: its signal handlers and its end touch nobody else's tasks.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import kopf
import structlog
from kubernetes.aio.client import Configuration

from edgewright_contract import names
from edgewright_operator.pacing import Backoff

log = structlog.get_logger()

Object = dict[str, Any]


def registry_of(
    seen: Callable[[Object, bool], None], login: Callable[[], kopf.ConnectionInfo]
) -> kopf.OperatorRegistry:
    """The handlers: `seen(item, gone)` for every raw event."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def _login(**_: Any) -> kopf.ConnectionInfo:
        return login()

    @kopf.on.event(names.GROUP, names.VERSION, names.COMPRESSED_MODELS, registry=registry)
    async def _changed(event: kopf.RawEvent, **_: Any) -> None:
        seen(dict(event["object"]), event["type"] == "DELETED")

    return registry


def connection(configuration: Configuration, token: str | None) -> kopf.ConnectionInfo:
    """What kopf needs to log in as we do."""
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme="Bearer" if token else None,
        token=token.split(" ", 1)[-1].strip() if token else None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )


async def follow(configuration: Configuration, seen: Callable[[Object, bool], None]) -> None:
    """Run kopf until cancelled; `seen` is called in this loop. kopf giving up on a bad API server is no end."""
    loop = asyncio.get_running_loop()
    stop = threading.Event()

    def handed(item: Object, gone: bool) -> None:
        loop.call_soon_threadsafe(seen, item, gone)

    def login() -> kopf.ConnectionInfo:
        token = configuration.get_api_key_with_prefix("BearerToken")
        return connection(configuration, asyncio.run_coroutine_threadsafe(token, loop).result(10))

    try:
        await asyncio.to_thread(_serve, registry_of(handed, login), stop)
    finally:
        stop.set()


def _serve(registry: kopf.OperatorRegistry, stop: threading.Event) -> None:
    logging.getLogger("kopf").setLevel(logging.WARNING)
    backoff = Backoff(base=1.0)
    while not stop.is_set():
        try:
            asyncio.run(
                kopf.operator(
                    registry=registry, settings=_settings(), standalone=True, clusterwide=True, stop_flag=stop
                )
            )
        except Exception as error:  # whatever it is: our own listing goes on, and kopf is begun anew
            log.warning("kopf ended, beginning anew", error=f"{type(error).__name__}: {error}")
        stop.wait(backoff.failed())


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False  # our Events are our own
    settings.peering.standalone = True  # one operator acts: the Lease says which
    settings.watching.server_timeout = 300
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    return settings
