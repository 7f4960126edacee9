"""`edgewright-gateway`: reads the settings and serves until it is told to end."""

import argparse
import asyncio
import sys

import httpx2
import uvicorn
from pydantic import ValidationError

from edgewright_contract import keys
from edgewright_operator.connection import ConnectionProblem, connect
from edgewright_operator.gateway import access, app, blobs, intake
from edgewright_operator.gateway.settings import Settings
from edgewright_operator.mlflow import MlflowRegistry


def main() -> None:
    """Entry point."""
    argparse.ArgumentParser(
        prog="edgewright-gateway",
        description="Verifies releases for the operator and serves their files to the nodes. Settings are environment"
        " variables EDGEWRIGHT_GATEWAY_*: " + ", ".join(name.upper() for name in Settings.model_fields),
        epilog="Example: EDGEWRIGHT_GATEWAY_MLFLOW_URL=http://mlflow:5000 EDGEWRIGHT_GATEWAY_CACHE=cache"
        " EDGEWRIGHT_GATEWAY_TRUST_FILE=trust.json EDGEWRIGHT_GATEWAY_ROOT_KEY_FILE=root.pub edgewright-gateway",
    ).parse_args()
    try:
        asyncio.run(serve(Settings()))
    except ValidationError as error:
        problems = "; ".join(f"EDGEWRIGHT_GATEWAY_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        sys.exit(f"edgewright-gateway: {problems}")
    except (ConnectionProblem, keys.KeyFormatError, OSError) as error:
        sys.exit(f"edgewright-gateway: {error}")


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM."""
    root = keys.load_public(settings.root_key_file.read_bytes())
    async with connect(settings.kubeconfig) as api, httpx2.AsyncClient(timeout=60, trust_env=False) as plain:
        registry = MlflowRegistry(settings.mlflow_url, plain)
        taking = intake.Intake(registry, blobs.Blobs(settings.cache), settings.trust_file, root)
        application = app.create(taking, access.Access(api), settings.operator_account)
        config = uvicorn.Config(
            application,
            settings.host,
            settings.port,
            ssl_certfile=settings.tls_certificate_file,
            ssl_keyfile=settings.tls_key_file,
            access_log=False,
            log_level="warning",
        )
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    main()
