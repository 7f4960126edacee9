"""Where operator and gateway read the MLflow registry: plain REST, bounded, without importing MLflow."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx2

_API: Final = "/api/2.0/mlflow"
_ARTIFACTS: Final = "/api/2.0/mlflow-artifacts/artifacts"
_SCHEME: Final = "mlflow-artifacts:/"
_MAX_JSON: Final = 4 * 1024 * 1024
_MAX_REDIRECTS: Final = 3
_MAX_PAGES: Final = 50
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
        token = ""
        for _ in range(_MAX_PAGES):
            query = {"filter": f"name='{model}'", "max_results": "200", "order_by": "version_number DESC"}
            body = await self._json(
                f"{_API}/model-versions/search", **query, **({"page_token": token} if token else {})
            )
            for entry in (body or {}).get("model_versions", []):
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
            VersionNotFound, Unavailable
        """
        body = await self._json(f"{_API}/model-versions/get-download-uri", name=model, version=str(version))
        if body is None:
            raise VersionNotFound(f"registered model {model} has no version {version}")
        uri = body.get("artifact_uri")
        path = uri.removeprefix(_SCHEME).strip("/") if isinstance(uri, str) and uri.startswith(_SCHEME) else ""
        if not _plain(path):
            raise Unavailable(f"{model} version {version} lies at {uri!r}: only files that MLflow serves are read")
        return path

    async def download(self, path: str, limit: int) -> bytes:
        """A file below the artifact root, of at most `limit` bytes; redirects stay on the same host.

        Raises:
            ArtifactNotFound, ArtifactTooLarge, Unavailable
        """
        if not _plain(path):
            raise ArtifactNotFound(f"{path!r} is no plain path")
        return await self._fetch(f"{self._url}{_ARTIFACTS}/{path}", path, limit)

    async def _fetch(self, url: str, path: str, limit: int) -> bytes:
        target, first = httpx2.URL(url), httpx2.URL(url)
        try:
            for _ in range(_MAX_REDIRECTS + 1):
                async with self._client.stream("GET", target, follow_redirects=False) as answer:
                    if answer.is_redirect:
                        target = _same_host(first, target.join(answer.headers.get("location", "")))
                        continue
                    if answer.status_code == httpx2.codes.NOT_FOUND:
                        raise ArtifactNotFound(f"MLflow holds no {path}")
                    answer.raise_for_status()
                    return await _bounded(answer, path, limit)
        except httpx2.HTTPError as error:
            raise Unavailable(f"MLflow at {self._url}: {path}: {error or type(error).__name__}") from error
        raise Unavailable(f"MLflow at {self._url}: {path}: more than {_MAX_REDIRECTS} redirects")

    async def _require_model(self, model: str) -> None:
        if await self._json(f"{_API}/registered-models/get", name=model) is None:
            raise ModelNotFound(f"MLflow has no registered model {model}: publish a release of it first")

    async def _json(self, path: str, **query: str) -> dict[str, Any] | None:
        """The answer, or None where MLflow says that the thing does not exist."""
        try:
            answer = await self._client.get(f"{self._url}{path}", params=query, follow_redirects=False)
            if len(answer.content) > _MAX_JSON:
                raise Unavailable(f"MLflow at {self._url}: {path}: an answer of {len(answer.content)} bytes")
            body = answer.json()
        except (httpx2.HTTPError, ValueError) as error:
            raise Unavailable(f"MLflow at {self._url}: {path}: {error or type(error).__name__}") from error
        if answer.is_success and isinstance(body, dict):
            return body
        # a missing alias is a 400 in MLflow, everything else that is missing a 404
        if answer.status_code in (httpx2.codes.NOT_FOUND, httpx2.codes.BAD_REQUEST):
            return None
        raise Unavailable(f"MLflow at {self._url}: {path}: status {answer.status_code}")


async def _bounded(answer: httpx2.Response, path: str, limit: int) -> bytes:
    parts = bytearray()
    async for part in answer.aiter_bytes():
        parts += part
        if len(parts) > limit:
            raise ArtifactTooLarge(f"{path} has more than {limit} bytes")
    return bytes(parts)


def _same_host(first: httpx2.URL, target: httpx2.URL) -> httpx2.URL:
    if (target.scheme, target.host, target.port) != (first.scheme, first.host, first.port):
        raise Unavailable(f"MLflow sends to another host ({target.host}); redirects are followed on one host only")
    return target


def _plain(path: str) -> bool:
    return _SAFE_PATH.fullmatch(path) is not None and not {".", ".."} & set(path.split("/"))


def _version(body: Mapping[str, Any]) -> ModelVersion:
    try:
        entry = body["model_version"]
        tags = {str(tag["key"]): str(tag.get("value", "")) for tag in entry.get("tags", [])}
        return ModelVersion(int(entry["version"]), tags)
    except (KeyError, TypeError, ValueError) as error:
        raise Unavailable(f"MLflow gave a model version that cannot be read: {error!r}") from error
