"""What is published: reads versions, aliases and files of the MLflow registry, and moves an alias."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx2
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from edgewright_contract import bundle, names, trust
from edgewright_contract.digests import digest_of, is_digest
from edgewright_contract.dsse import SignatureError
from edgewright_pipelines.release_folder import FolderError, Signed, Verified, verified

LATEST: Final = "latest"
_SCHEME: Final = "mlflow-artifacts:/"
_SECONDS: Final = 60.0


class RegistryError(ValueError):
    """The registry does not hold what was asked for, or not unchanged; the text says what and what to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered version. Without `manifest` it was never published wholly, and no node will see it."""

    name: str
    version: int
    sequence: int | None
    manifest: str | None
    aliases: tuple[str, ...]
    variants: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "name": self.name,
            "version": self.version,
            "sequence": self.sequence,
            "manifest": self.manifest,
            "aliases": list(self.aliases),
            "variants": list(self.variants),
        }


def connect(url: str) -> MlflowClient:
    """A client that gives up after three tries in some four seconds, where the default is minutes; and is quiet."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=url)


def entries(client: MlflowClient, name: str | None = None) -> list[Entry]:
    """All versions of one registered model, or of all, newest first.

    Raises:
        RegistryError: no such registered model, or the registry is away.
    """
    found: list[Entry] = []
    with _sentences(client, name):
        for model in [client.get_registered_model(name)] if name else _all_models(client):
            aliases = {str(alias): int(version) for alias, version in model.aliases.items()}
            found += [_entry(version, aliases) for version in _versions(client, model.name)]
    return sorted(found, key=lambda entry: (entry.name, -entry.version))


def find(client: MlflowClient, name: str | None, which: str) -> Entry:
    """The version of a number, of an alias, or the newest published one (`latest`; of all models without a name).

    Raises:
        RegistryError: there is none, or it is not published.
    """
    found = entries(client, name)
    if which == LATEST:
        published = [entry for entry in found if entry.manifest and entry.sequence]
        if not published:
            raise RegistryError(f"{name or client.tracking_uri} has no published version: publish a release first")
        return max(published, key=lambda entry: entry.sequence or 0)
    chosen = [entry for entry in found if which in (str(entry.version), *entry.aliases)]
    if not chosen:
        known = ", ".join(str(entry.version) for entry in found) or "none"
        raise RegistryError(f"{name} has no version or alias {which}; its versions are {known}")
    if chosen[0].manifest is None:
        raise RegistryError(
            f"{name} version {chosen[0].version} has no tag {names.TAG_MANIFEST}: its publishing did not end; "
            "publish again, which makes a new version"
        )
    return chosen[0]


def fetch(client: MlflowClient, entry: Entry, opened: trust.OpenedTrust) -> tuple[Signed, Verified]:
    """All files of a published version, downloaded and verified: tag, signature, digests, release.json.

    Raises:
        RegistryError: anything that does not fit.
    """
    where = f"{entry.name} version {entry.version}"
    with _sentences(client, entry.name), artifacts(client, entry.name, entry.version) as http:
        data = download(http, names.MANIFEST_FILE, names.MAX_MANIFEST_BYTES)
        if digest_of(data) != entry.manifest:
            raise RegistryError(f"{where} was changed: its manifest is not the one of its tag {names.TAG_MANIFEST}")
        try:
            manifest = trust.verify_manifest(data, opened, entry.name)
        except SignatureError as error:
            raise RegistryError(f"{where}: {error}") from None
        stored = Signed(data, _files(http, manifest))
    try:
        checked = verified(stored, opened)
    except FolderError as error:
        raise RegistryError(f"{where}: {error}") from None
    stated = (checked.release.registered_model, checked.release.version, checked.release.sequence)
    if stated != (entry.name, entry.version, entry.sequence):
        raise RegistryError(f"{where}: its release.json says it is {stated[0]} version {stated[1]}, {stated[2]}")
    return stored, checked


def move_alias(client: MlflowClient, entry: Entry, alias: str, *, rollback: bool) -> Entry | None:
    """Let the alias name this version; gives the version that it named before.

    rollback: also to an older sequence than the alias has now, which every node takes as a wish to go back.

    Raises:
        RegistryError: it would go back and `rollback` was not said, or the registry refused.
    """
    before = next((other for other in entries(client, entry.name) if alias in other.aliases), None)
    if before is not None and not rollback and (before.sequence or 0) > (entry.sequence or 0):
        raise RegistryError(
            f"{alias} names version {before.version} (sequence {before.sequence}), version {entry.version} is older "
            f"({entry.sequence}): nodes would go back; say --rollback if that is the wish"
        )
    with _sentences(client, entry.name):
        client.set_registered_model_alias(entry.name, alias, str(entry.version))
    return before


@contextmanager
def artifacts(client: MlflowClient, name: str, version: int) -> Iterator[httpx2.Client]:
    """A client whose base URL is the place of the version's files, as the gateway reads them.

    Raises:
        RegistryError: they do not lie behind the MLflow server.
    """
    base = str(client.get_model_version_download_uri(name, str(version)))
    if not base.startswith(_SCHEME) or base.startswith(f"{_SCHEME}/"):  # the latter would name another host
        raise RegistryError(
            f"{name} version {version} lies at {base}: the gateway reads only through the MLflow server; "
            "start it with --artifacts-destination"
        )
    server = client.tracking_uri.rstrip("/")
    root = f"{server}/api/2.0/mlflow-artifacts/artifacts/{base.removeprefix(_SCHEME)}/"
    with httpx2.Client(base_url=root, timeout=_SECONDS, headers=_credentials(), trust_env=_proxied(server)) as http:
        yield http


def download(http: httpx2.Client, path: str, limit: int) -> bytes:
    """One file of at most `limit` bytes.

    Raises:
        RegistryError: it is missing or larger.
        httpx2.HTTPError: the registry is away.
    """
    data = bytearray()
    with http.stream("GET", path) as answer:
        if answer.status_code == httpx2.codes.NOT_FOUND:
            raise RegistryError(f"the registry holds no {path}")
        answer.raise_for_status()
        for part in answer.iter_bytes():
            data += part
            if len(data) > limit:
                raise RegistryError(f"{path} has more than {limit} bytes")
    return bytes(data)


def _files(http: httpx2.Client, manifest: bundle.Manifest) -> dict[str, bytes]:
    found = {}
    for path, digest in manifest.files.items():
        found[path] = download(http, f"{names.RELEASE_FOLDER}/{path}", names.MAX_MODEL_BYTES)
        if digest_of(found[path]) != digest:
            raise RegistryError(f"{path} was changed after signing: its digest is not the signed one")
    return found


def _all_models(client: MlflowClient) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_registered_models(max_results=100, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _versions(client: MlflowClient, name: str) -> Iterator[ModelVersion]:
    token = None
    while True:
        page = client.search_model_versions(f"name='{name}'", max_results=200, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _entry(version: ModelVersion, aliases: dict[str, int]) -> Entry:
    number = int(version.version)
    sequence, manifest = (version.tags.get(tag, "") for tag in (names.TAG_SEQUENCE, names.TAG_MANIFEST))
    return Entry(
        str(version.name),
        number,
        int(sequence) if sequence.isdecimal() else None,
        manifest if is_digest(manifest) else None,
        tuple(sorted(alias for alias, named in aliases.items() if named == number)),
        tuple(filter(None, version.tags.get(names.TAG_VARIANTS, "").split(","))),
    )


def sequences(client: MlflowClient, name: str, *, apart_from: int) -> dict[int, int]:
    """The sequence of every other version that has one, by its number."""
    found = (_entry(version, {}) for version in _versions(client, name))
    return {entry.version: entry.sequence for entry in found if entry.sequence and entry.version != apart_from}


@contextmanager
def _sentences(client: MlflowClient, name: str | None) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise RegistryError(
                f"the registry has no {name}: publish a release of it first ({error.message})"
            ) from None
        raise RegistryError(trouble(client, error)) from error
    except httpx2.HTTPError as error:
        raise RegistryError(trouble(client, error)) from error


def trouble(client: MlflowClient, error: MlflowException | httpx2.HTTPError) -> str:
    """What a person reads who asked a registry that is away, or that answered with an error."""
    # MLflow's client wraps what requests raised, and every error of requests is an OSError.
    if isinstance(error, httpx2.TransportError) or isinstance(error.__context__, OSError):
        return (
            f"the registry at {client.tracking_uri} does not answer; "
            "does MLflow run there, and is that the address (--mlflow, else MLFLOW_TRACKING_URI)?"
        )
    return f"the registry at {client.tracking_uri}: {error or type(error).__name__}"


def _credentials() -> dict[str, str]:
    """What MLflow's own client would send: its variables MLFLOW_TRACKING_TOKEN, _USERNAME and _PASSWORD."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    if user:
        request = httpx2.Request("GET", "http://registry")
        signed = next(httpx2.BasicAuth(user, password).auth_flow(request))
        return {"Authorization": signed.headers["Authorization"]}
    return {}


def _proxied(url: str) -> bool:
    """A proxy in the environment must not see loopback traffic."""
    return httpx2.URL(url).host not in ("127.0.0.1", "localhost", "::1")
