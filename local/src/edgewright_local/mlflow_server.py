"""A real MLflow tracking server and registry on loopback, with its store in one folder that can be resumed.

`MlflowServer.start` → `.url` for the pipelines and the operator → `.stop()`.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx2

from edgewright_local.ports import free_ports
from edgewright_local.processes import ManagedProcess, ProcessSpec

# Importing MLflow takes most of it, and the first start also makes the tables of its database.
_READY_SECONDS = 180.0


@dataclass(frozen=True)
class MlflowServer:
    """A running server; `directory` holds `mlflow.db` and `artifacts/`."""

    directory: Path
    url: str
    process: ManagedProcess

    @classmethod
    def start(cls, directory: Path, port: int | None = None) -> MlflowServer:
        """Start on `directory` (kept from an earlier run, or new) and return when it is healthy.

        Raises:
            ProcessError: it did not become healthy, or one still runs on the same folder.
        """
        folder = directory.absolute()
        (folder / "artifacts").mkdir(parents=True, exist_ok=True)
        chosen = free_ports(1)[0] if port is None else port
        process = ManagedProcess.start(ProcessSpec("mlflow", _command(folder, chosen), folder, _environment(), folder))
        url = f"http://127.0.0.1:{chosen}"
        with httpx2.Client(base_url=url, timeout=2.0, trust_env=False) as client:
            process.wait_until_ready(lambda: _healthy(client), _READY_SECONDS)
        return cls(folder, url, process)

    def stop(self) -> None:
        """End the server and its workers; what it stored stays. Stopping twice is fine."""
        self.process.stop()


def _command(folder: Path, port: int) -> list[str]:
    return [
        sys.executable,
        *("-m", "mlflow", "server"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1"),  # each weighs about 300 MB
        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
        *("--artifacts-destination", (folder / "artifacts").as_uri()),
    ]


def _environment() -> dict[str, str]:
    """The caller's environment without its MLflow settings: they are about clients and other servers."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "_MLFLOW_"))}
    # Jobs (scorers, optimizers) would bring two more processes that nothing here uses.
    return {**kept, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def _healthy(client: httpx2.Client) -> bool:
    try:
        return client.get("/health").status_code == httpx2.codes.OK
    except httpx2.HTTPError:
        return False
