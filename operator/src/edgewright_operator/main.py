"""`edgewright-operator`: reads the settings, wins the election, and runs rounds until it is told to end or loses."""

import argparse
import asyncio
import signal
import socket
import ssl
import sys
import time
import uuid
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import httpx2
import prometheus_client
from kubernetes.aio.client import ApiClient
from pydantic import ValidationError

from edgewright_operator import lifecycle
from edgewright_operator.acting import act
from edgewright_operator.api import Api
from edgewright_operator.cluster import Cluster
from edgewright_operator.connection import ConnectionProblem, configured
from edgewright_operator.election import Election
from edgewright_operator.fleet import Fleet
from edgewright_operator.leading import leading
from edgewright_operator.metrics import NodeMetrics
from edgewright_operator.mlflow import Credentials, MlflowRegistry
from edgewright_operator.pacing import Pacing
from edgewright_operator.settings import Settings
from edgewright_operator.source import Gateway


def main() -> None:
    """Entry point; exit code 2 for wrong settings, 1 when the Lease was lost."""
    parser = argparse.ArgumentParser(
        prog="edgewright-operator",
        description="Rolls releases out to edge nodes. Settings are environment variables EDGEWRIGHT_OPERATOR_*: "
        + ", ".join(name.upper() for name in Settings.model_fields),
        epilog="Example: EDGEWRIGHT_OPERATOR_KUBECONFIG=~/.kube/config EDGEWRIGHT_OPERATOR_MLFLOW_URL=http://mlflow:5000"
        " EDGEWRIGHT_OPERATOR_GATEWAY_URL=http://gateway:8080 EDGEWRIGHT_OPERATOR_GATEWAY_TOKEN_FILE=token"
        " edgewright-operator",
    )
    parser.parse_args()
    try:
        settings = Settings()
        sys.exit(asyncio.run(run(settings)))
    except ValidationError as error:
        problems = "; ".join(f"EDGEWRIGHT_OPERATOR_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        sys.exit(f"edgewright-operator: {problems}")
    except (ConnectionProblem, OSError) as error:
        sys.exit(f"edgewright-operator: {error}")


async def run(settings: Settings) -> int:
    """Act whenever we hold the Lease, until SIGTERM; returns the exit code."""
    prometheus_client.start_http_server(settings.metrics_port, addr=settings.metrics_host)
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, ending.set)
    election = Election(f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}", settings.lease_seconds)
    configuration = await configured(settings.kubeconfig)
    login = Credentials(settings.mlflow_user, settings.mlflow_password_file, settings.mlflow_token_file)
    async with (
        ApiClient(configuration) as client,
        httpx2.AsyncClient(timeout=60, trust_env=False, auth=login) as to_mlflow,
        httpx2.AsyncClient(timeout=60, trust_env=False, verify=_trusting(settings.gateway_ca)) as to_gateway,
    ):
        cluster = Cluster(Api(client, Pacing(), lambda: time.monotonic() < election.sure_until), settings.writes)
        registry = MlflowRegistry(settings.mlflow_url, to_mlflow)
        gateway = Gateway(settings.gateway_url, settings.gateway_token_file, to_gateway)

        def begin() -> Coroutine[Any, Any, None]:
            return act(cluster, registry, gateway, settings, lambda seen: lifecycle.follow(configuration, seen), _show)

        return await leading(election, cluster, begin, ending)


def _show(fleet: Fleet) -> None:
    prometheus_client.REGISTRY.register(NodeMetrics(fleet))


def _trusting(authority: Path | None) -> ssl.SSLContext | bool:
    """The system's authorities, or only the one that is named."""
    return ssl.create_default_context(cafile=str(authority)) if authority else True


if __name__ == "__main__":
    main()
