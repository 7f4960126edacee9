"""`edgewright-gateway`: reads the settings and serves until it is told to end."""

import argparse
import asyncio
import sys

import httpx2
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from edgewright_contract import keys, names
from edgewright_operator.connection import ConnectionProblem, connect
from edgewright_operator.gateway import access, app, blobs, index, intake, trusted
from edgewright_operator.gateway.settings import Settings
from edgewright_operator.mlflow import Credentials, MlflowRegistry


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
        problems = "; ".join(
            f"EDGEWRIGHT_GATEWAY_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()
        )
        sys.exit(f"edgewright-gateway: {problems}")
    except (ConnectionProblem, keys.KeyFormatError, OSError) as error:
        sys.exit(f"edgewright-gateway: {error}")


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM."""
    root = keys.load_public(settings.root_key_file.read_bytes())
    login = Credentials(settings.mlflow_user, settings.mlflow_password_file, settings.mlflow_token_file)
    async with (
        connect(settings.kubeconfig) as api,
        httpx2.AsyncClient(timeout=60, trust_env=False, auth=login) as to_mlflow,
    ):
        await uvicorn.Server(_config(settings, api, MlflowRegistry(settings.mlflow_url, to_mlflow), root)).serve()


def _config(
    settings: Settings, api: httpx2.AsyncClient, registry: MlflowRegistry, root: ec.EllipticCurvePublicKey
) -> uvicorn.Config:
    kept = blobs.Blobs(settings.cache / "blobs")
    held = index.Index(settings.cache / "releases")
    held.sweep(kept)
    keeper = trusted.TrustKeeper(settings.trust_file, settings.cache / names.TRUST_FILE, root)
    taking = intake.Intake(registry, kept, held, keeper, settings.cache_bytes)
    accounts = [pattern.strip() for pattern in settings.node_accounts.split(",") if pattern.strip()]
    application = app.create(taking, access.Access(api, settings.operator_account, accounts))
    return uvicorn.Config(
        application,
        settings.host,
        settings.port,
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=10,
        ssl_certfile=settings.tls_certificate_file,
        ssl_keyfile=settings.tls_key_file,
    )


if __name__ == "__main__":
    main()
