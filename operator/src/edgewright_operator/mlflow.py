"""Where operator and gateway read the MLflow registry: plain REST, bounded, without importing MLflow."""

import base64
import json
import re
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

_API: Final = "/api/2.0/mlflow"
_ARTIFACTS: Final = "/api/2.0/mlflow-artifacts/artifacts"
_SCHEME: Final = "mlflow-artifacts:/"
_MAX_JSON: Final = 4 * 1024 * 1024
_MAX_REDIRECTS: Final = 3
_MAX_PAGES: Final = 50
_MISSING: Final = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
_SAFE_PATH = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")


class MlflowError(Exception):
    """The registry did not give what was asked for."""


class ModelNotFound(MlflowError):
    """No registered model of that name."""


class AliasNotFound(MlflowError):
    """The registered model has no such alias."""


class VersionNotFound(MlflowError):
    """The registered model has no such version."""


class ArtifactNotFound(MlflowError):
    """The version holds no such file."""


class ArtifactTooLarge(MlflowError):
    """The file is larger than the caller allows."""


class Unavailable(MlflowError):
    """The registry is away, or answers what cannot be used: try later."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a registered model and its tags."""

    version: int
    tags: Mapping[str, str]


class Credentials(httpx2.Auth):
    """What MLflow asks for, read from files for every request, because mounted secrets are replaced while we run."""

    def __init__(self, user: str, password_file: Path | None, token_file: Path | None) -> None:
        self._user, self._password, self._token = user, password_file, token_file

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Put the token, or user and password, onto the request."""
        try:
            if self._token is not None:
                request.headers["Authorization"] = f"Bearer {self._token.read_text().strip()}"
            elif self._password is not None:
                pair = f"{self._user}:{self._password.read_text().strip()}"
                request.headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        except OSError as error:
            raise httpx2.RequestError(f"the credentials of MLflow cannot be read: {error}") from error
        except UnicodeDecodeError:
            file = self._token or self._password
            raise httpx2.RequestError(f"the credentials of MLflow cannot be read: {file} is no text") from None
        yield request


class MlflowRegistry:
    """Reads of one server; `client` carries credentials and timeouts and stays the caller's."""

    def __init__(self, url: str, client: httpx2.AsyncClient) -> None:
        self._url = url.rstrip("/")
        self._client = client

    async def alias(self, model: str, alias: str) -> ModelVersion:
        """The version that an alias names.

        Raises:
            ModelNotFound, AliasNotFound, Unavailable
        """
        body = await self._json(f"{_API}/registered-models/alias", name=model, alias=alias)
        if body is None:
            await self._require_model(model)
            raise AliasNotFound(f"registered model {model} has no alias {alias}: set it in MLflow")
        return _version(body)

    async def version(self, model: str, version: int) -> ModelVersion:
        """A version by its number.

        Raises:
            ModelNotFound, VersionNotFound, Unavailable
        """
        body = await self._json(f"{_API}/model-versions/get", name=model, version=str(version))
        if body is None:
            await self._require_model(model)
            raise VersionNotFound(f"registered model {model} has no version {version}")
        return _version(body)

    async def with_tag(self, model: str, tag: str, value: str) -> ModelVersion | None:
        """The newest version whose tag has that value.

        Raises:
            Unavailable
        """
        if "'" in model:  # it would end the text in the filter; no release can have such a name
            return None
        token = ""
        for _ in range(_MAX_PAGES):
            query = {"filter": f"name='{model}'", "max_results": "200", "order_by": "version_number DESC"}
            body = await self._json(
                f"{_API}/model-versions/search", **query, **({"page_token": token} if token else {})
            )
            for entry in (body or {}).get("model_versions") or []:
                found = _version({"model_version": entry})
                if found.tags.get(tag) == value:
                    return found
            token = (body or {}).get("next_page_token", "")
            if not token:
                return None
        return None

    async def artifact_base(self, model: str, version: int) -> str:
        """The path below the artifact root where the version's files lie.

        Raises:
            ModelNotFound, VersionNotFound, Unavailable
        """
        body = await self._json(f"{_API}/model-versions/get-download-uri", name=model, version=str(version))
        if body is None:
            await self._require_model(model)
            raise VersionNotFound(f"registered model {model} has no version {version}")
        uri = body.get("artifact_uri")
        path = uri.removeprefix(_SCHEME).removesuffix("/") if isinstance(uri, str) and uri.startswith(_SCHEME) else ""
        if not _plain(path):
            raise Unavailable(f"{model} version {version} lies at {uri!r}: only files that MLflow serves are read")
        return path

    async def download(self, path: str, limit: int) -> bytes:
        """A small file below the artifact root, of at most `limit` bytes.

        Raises:
            as download_into
        """
        found = bytearray()

        async def keep(data: bytes) -> None:
            found.extend(data)

        await self.download_into(path, limit, keep)
        return bytes(found)

    async def download_into(self, path: str, limit: int, keep: Callable[[bytes], Awaitable[None]]) -> None:
        """Give a file below the artifact root to `keep`, piece by piece; redirects stay on the same host.

        Raises:
            ArtifactNotFound, ArtifactTooLarge (more than `limit` bytes), Unavailable
        """
        if not _plain(path):
            raise ArtifactNotFound(f"{path!r} is no plain path")
        target = first = httpx2.URL(f"{self._url}{_ARTIFACTS}/{path}")
        try:
            for _ in range(_MAX_REDIRECTS + 1):
                async with self._client.stream("GET", target, follow_redirects=False) as answer:
                    if answer.is_redirect:
                        target = _same_host(first, target.join(answer.headers.get("location", "")))
                        continue
                    if answer.status_code == httpx2.codes.NOT_FOUND:
                        raise ArtifactNotFound(f"MLflow holds no {path}")
                    answer.raise_for_status()
                    await _bounded(answer, path, limit, keep)
                    return
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise Unavailable(f"MLflow at {self._url}: {path}: {error or type(error).__name__}") from error
        raise Unavailable(f"MLflow at {self._url}: {path}: more than {_MAX_REDIRECTS} redirects")

    async def _require_model(self, model: str) -> None:
        if await self._json(f"{_API}/registered-models/get", name=model) is None:
            raise ModelNotFound(f"MLflow has no registered model {model}: publish a release of it first")

    async def _json(self, path: str, **query: str) -> dict[str, Any] | None:
        """The answer, or None where MLflow says that the thing does not exist."""
        found = bytearray()

        async def keep(data: bytes) -> None:
            found.extend(data)

        try:
            target = f"{self._url}{path}"
            async with self._client.stream("GET", target, params=query, follow_redirects=False) as answer:
                await _bounded(answer, path, _MAX_JSON, keep)
            body = json.loads(found)
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, RecursionError, ArtifactTooLarge) as error:
            raise Unavailable(f"MLflow at {self._url}: {path}: {error or type(error).__name__}") from error
        if not isinstance(body, dict):
            raise Unavailable(f"MLflow at {self._url}: {path}: no JSON object")
        if answer.is_success:
            return body
        # a missing alias is a 400 with INVALID_PARAMETER_VALUE in MLflow, everything else that is missing a 404
        if body.get("error_code") in _MISSING:
            return None
        told = str(body.get("message") or body.get("error_code") or "")[:256]
        raise Unavailable(f"MLflow at {self._url}: {path}: status {answer.status_code} {told}".strip())


async def _bounded(answer: httpx2.Response, path: str, limit: int, keep: Callable[[bytes], Awaitable[None]]) -> None:
    size = 0
    async for part in answer.aiter_bytes():
        size += len(part)
        if size > limit:
            raise ArtifactTooLarge(f"{path} has more than {limit} bytes")
        await keep(part)


def _same_host(first: httpx2.URL, target: httpx2.URL) -> httpx2.URL:
    if (target.scheme, target.host, target.port) != (first.scheme, first.host, first.port):
        raise Unavailable(f"MLflow sends to another host ({target.host}); redirects are followed on one host only")
    return target


def _plain(path: str) -> bool:
    return _SAFE_PATH.fullmatch(path) is not None and not {".", ".."} & set(path.split("/"))


def _version(body: Mapping[str, Any]) -> ModelVersion:
    try:
        entry = body["model_version"]
        tags = {str(tag["key"]): str(tag.get("value", "")) for tag in entry.get("tags") or []}
        return ModelVersion(int(entry["version"]), tags)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unavailable(f"MLflow gave a model version that cannot be read: {error!r}") from error
