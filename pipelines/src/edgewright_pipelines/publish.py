"""Last stage, `release.build → publish.to_mlflow`: number, sign, upload, read back, tag; then an alias may move."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
from cryptography.hazmat.primitives.asymmetric import ec
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from edgewright_contract import bundle, names
from edgewright_contract.digests import digest_of
from edgewright_pipelines.release import UnsignedRelease

EXPERIMENT: Final = "edgewright"
_SCHEME: Final = "mlflow-artifacts:/"
_SECONDS: Final = 60.0


class PublishError(ValueError):
    """The release was not published; the text says at which step. A version without its tag does not exist."""


@dataclass(frozen=True, slots=True)
class Published:
    """A release that stands in the registry; `manifest` is its identity (`sha256:…`)."""

    version: int
    sequence: int
    manifest: str


def to_mlflow(
    unsigned: UnsignedRelease,
    key: ec.EllipticCurvePrivateKey,
    client: MlflowClient,
    *,
    alias: str | None,
    now: float,
    run_id: str | None = None,
    experiment: str = EXPERIMENT,
) -> Published:
    """Publish as a new version of its registered model; move `alias` (None: none) to it as the last act.

    now: UTC seconds. run_id: the MLflow run that the version belongs to; None makes one.

    Raises:
        PublishError: the registry refused a step, or what it stores is not what was sent.
    """
    name = unsigned.registered_model
    try:
        sequence = _next_sequence(client, name, now)
        run = run_id or start_run(client, experiment)
        model = client.create_logged_model(client.get_run(run).info.experiment_id, name=name, source_run_id=run)
        created = client.create_model_version(name, source=model.model_uri, run_id=run, model_id=model.model_id)
        version = int(created.version)
        files = unsigned.numbered(version, sequence)
        manifest = bundle.sign(name, files, key)
        stored = {f"{names.RELEASE_FOLDER}/{path}": data for path, data in files.items()}
        stored[names.MANIFEST_FILE] = manifest
        _upload(client, model.model_id, stored)
        client.finalize_logged_model(model.model_id, "READY")
        _read_back(client, name, version, stored)
        client.set_model_version_tag(name, str(version), names.TAG_SEQUENCE, str(sequence))
        client.set_model_version_tag(name, str(version), names.TAG_MANIFEST, digest_of(manifest))
        if run_id is None:
            client.set_terminated(run)
        if alias is not None:
            client.set_registered_model_alias(name, alias, str(version))
    except (MlflowException, httpx2.HTTPError) as error:
        raise PublishError(f"{name} was not published: the registry at {client.tracking_uri}: {error}") from error
    return Published(version, sequence, digest_of(manifest))


def _next_sequence(client: MlflowClient, name: str, now: float) -> int:
    """UTC seconds, but above every sequence that the model already has, even if this clock lags."""
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(name)
        return int(now)
    greatest, token = 0, None
    while True:
        page = client.search_model_versions(f"name='{name}'", max_results=200, page_token=token)
        greatest = max([greatest, *(int(entry.tags.get(names.TAG_SEQUENCE, 0)) for entry in page)])
        token = page.token
        if not token:
            return max(int(now), greatest + 1)


def start_run(client: MlflowClient, experiment: str = EXPERIMENT, name: str | None = None) -> str:
    """A new run, in an experiment that is made where it is missing; its id."""
    found = client.get_experiment_by_name(experiment)
    identity = found.experiment_id if found else client.create_experiment(experiment)
    run: str = client.create_run(identity, run_name=name).info.run_id
    return run


def _upload(client: MlflowClient, model_id: str, stored: Mapping[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path, data in stored.items():
            file = Path(folder) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        client.log_model_artifacts(model_id, folder)


def _read_back(client: MlflowClient, name: str, version: int, stored: Mapping[str, bytes]) -> None:
    base = str(client.get_model_version_download_uri(name, str(version)))
    if not base.startswith(_SCHEME):
        raise PublishError(
            f"{name} version {version} lies at {base}: the gateway reads only through the MLflow server; "
            "start it with --artifacts-destination"
        )
    root = f"{client.tracking_uri.rstrip('/')}/api/2.0/mlflow-artifacts/artifacts/{base.removeprefix(_SCHEME)}"
    with httpx2.Client(timeout=_SECONDS, **_environment(client.tracking_uri)) as http:
        for path, data in stored.items():
            answer = http.get(f"{root}/{path}").raise_for_status()
            if digest_of(answer.content) != digest_of(data):
                raise PublishError(
                    f"{name} version {version}: the registry gives other bytes for {path} than were sent; "
                    "the version stays without its tag, so no node will see it: publish again"
                )


def _environment(url: str) -> dict[str, Any]:
    """A proxy in the environment must not see loopback traffic."""
    return {"trust_env": httpx2.URL(url).host not in ("127.0.0.1", "localhost", "::1")}
