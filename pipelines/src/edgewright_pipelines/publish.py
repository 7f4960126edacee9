"""Last stage, `release.build → publish.to_mlflow`: number, sign, upload, read back, tag; then an alias may move."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx2
from cryptography.hazmat.primitives.asymmetric import ec
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from edgewright_contract import bundle, names
from edgewright_contract.digests import digest_of
from edgewright_pipelines import registry
from edgewright_pipelines.release import UnsignedRelease
from edgewright_pipelines.release_folder import Signed

EXPERIMENT: Final = "edgewright"
_CLAIMS: Final = 5
_FUTURE: Final = 86_400
"""Seconds; the gateway refuses a sequence that is farther ahead."""
_TAG: Final = 4096
"""Characters of a tag; MLflow takes 5,000."""


class PublishError(ValueError):
    """The release was not published; the text says at which step. A version without its tag does not exist."""


@dataclass(frozen=True, slots=True)
class Published:
    """A release that stands in the registry; `manifest` is its identity (`sha256:…`), `stored` its very bytes."""

    version: int
    sequence: int
    manifest: str
    stored: Signed = field(repr=False)


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

    now: UTC seconds. run_id: the MLflow run that the version belongs to; None makes one. Interrupted anywhere, the
    version stays without its tag, so nobody sees it, and the run ends as FAILED; publishing again makes a new version.

    Raises:
        PublishError: the registry refused a step, or what it stores is not what was sent.
    """
    name = unsigned.registered_model
    with _sentences(client, name), _run(client, run_id, experiment) as run:
        _ensure_model(client, name)
        model = client.create_logged_model(client.get_run(run).info.experiment_id, name=name, source_run_id=run)
        created = client.create_model_version(name, source=model.model_uri, run_id=run, model_id=model.model_id)
        version = int(created.version)
        sequence = _claim_sequence(client, name, version, now)
        files = unsigned.numbered(version, sequence)
        stored = Signed(bundle.sign(name, files, key), files)
        _upload(client, model.model_id, _paths(stored))
        client.finalize_logged_model(model.model_id, "READY")
        _read_back(client, name, version, _paths(stored))
        variants = ",".join(variant["name"] for variant in unsigned.draft["variants"])
        client.set_model_version_tag(name, str(version), names.TAG_VARIANTS, variants[:_TAG])
        manifest = digest_of(stored.manifest)
        client.set_model_version_tag(name, str(version), names.TAG_MANIFEST, manifest)
    if alias is not None:
        with _sentences(client, name, f"version {version} is published, but {alias} did not move"):
            client.set_registered_model_alias(name, alias, str(version))
    return Published(version, sequence, manifest, stored)


@contextmanager
def _sentences(client: MlflowClient, name: str, what: str = "") -> Iterator[None]:
    try:
        yield
    except (MlflowException, httpx2.HTTPError) as error:
        told = what or f"{name} was not published"
        raise PublishError(f"{told}: {registry.trouble(client, error)}") from error
    except registry.RegistryError as error:
        raise PublishError(f"{name} was not published: {error}") from error


@contextmanager
def _run(client: MlflowClient, run_id: str | None, experiment: str) -> Iterator[str]:
    """The run of the release; it ends as FAILED when publishing does, also by Ctrl-C."""
    run = run_id or start_run(client, experiment)
    with failing(client, run):
        yield run
    if run_id is None:
        client.set_terminated(run)


@contextmanager
def failing(client: MlflowClient, run: str) -> Iterator[None]:
    """Mark the run as FAILED if what is inside does not end well; a registry that is away keeps it as it is."""
    try:
        yield
    except BaseException:
        with suppress(MlflowException):
            client.set_terminated(run, "FAILED")
        raise


def _ensure_model(client: MlflowClient, name: str) -> None:
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(name)


def _claim_sequence(client: MlflowClient, name: str, version: int, now: float) -> int:
    """UTC seconds, but above every sequence that the model already has, even if this clock lags.

    The tag is set first and the others are read after it: of two who publish at once, one sees the other.
    """
    others = registry.sequences(client, name, apart_from=version)
    mine = 0
    for _ in range(_CLAIMS):
        ahead = sum(number < version for number, sequence in others.items() if sequence == mine)
        mine = max(int(now), max(others.values(), default=0) + 1 + ahead)
        _require_present(name, others, mine, now)
        client.set_model_version_tag(name, str(version), names.TAG_SEQUENCE, str(mine))
        others = registry.sequences(client, name, apart_from=version)
        if mine > max(others.values(), default=0):
            return mine
    raise PublishError(f"{name} was not published: others publish it at the same time; try again")


def _require_present(name: str, others: Mapping[int, int], mine: int, now: float) -> None:
    """Anybody who may tag could otherwise bar all later releases from the nodes by one huge number."""
    if mine <= now + _FUTURE:
        return
    version = max(others, key=lambda number: others[number])
    raise PublishError(
        f"{name} was not published: version {version} has the tag {names.TAG_SEQUENCE} {others[version]}, more than "
        "a day ahead of this clock; set the clock, or remove that tag if it is wrong"
    )


def start_run(client: MlflowClient, experiment: str = EXPERIMENT, name: str | None = None) -> str:
    """A new run, in an experiment that is made where it is missing; its id."""
    found = client.get_experiment_by_name(experiment)
    identity = found.experiment_id if found else client.create_experiment(experiment)
    run: str = client.create_run(identity, run_name=name).info.run_id
    return run


def _paths(stored: Signed) -> dict[str, bytes]:
    """As they lie below the version's artifact root."""
    files = {f"{names.RELEASE_FOLDER}/{path}": data for path, data in stored.files.items()}
    return {**files, names.MANIFEST_FILE: stored.manifest}


def _upload(client: MlflowClient, model_id: str, stored: Mapping[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path, data in stored.items():
            file = Path(folder) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        client.log_model_artifacts(model_id, folder)


def _read_back(client: MlflowClient, name: str, version: int, stored: Mapping[str, bytes]) -> None:
    with registry.artifacts(client, name, version) as http:
        for path, data in stored.items():
            if digest_of(registry.download(http, path, names.MAX_MODEL_BYTES)) != digest_of(data):
                raise PublishError(
                    f"{name} version {version}: the registry gives other bytes for {path} than were sent; "
                    "the version stays without its tag, so no node will see it: publish again"
                )
