"""Which release a CompressedModel means: MLflow's alias or version, then the gateway's verified answer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from pydantic import ValidationError

from edgewright_contract import names
from edgewright_contract.compressedmodel import Source
from edgewright_contract.conditions import Reason
from edgewright_contract.digests import is_digest
from edgewright_contract.release import Release
from edgewright_operator import mlflow
from edgewright_operator.facts import ReleaseFacts, SourceProblem

_REASONS: dict[type[mlflow.MlflowError], Reason] = {
    mlflow.ModelNotFound: Reason.MODEL_NOT_FOUND,
    mlflow.AliasNotFound: Reason.ALIAS_NOT_FOUND,
    mlflow.VersionNotFound: Reason.VERSION_NOT_FOUND,
}


@dataclass(frozen=True, slots=True)
class Gateway:
    """The gateway as the operator calls it."""

    url: str
    token_file: Path
    client: httpx2.AsyncClient

    async def release(self, model: str, version: int, manifest: str) -> tuple[ReleaseFacts | SourceProblem, str | None]:
        """The verified release and the digest of trust.json, or why there is none."""
        body = {"registeredModel": model, "version": version, "manifest": manifest}
        try:
            headers = {"Authorization": f"Bearer {self.token_file.read_text().strip()}"}
            answer = await self.client.post(f"{self.url.rstrip('/')}/releases", json=body, headers=headers)
            found = answer.json()
        except (httpx2.HTTPError, ValueError, OSError) as error:
            problem = f"the model gateway at {self.url} cannot be asked: {type(error).__name__}: {error}"
            return SourceProblem(Reason.GATEWAY_UNAVAILABLE, problem), None
        if not isinstance(found, dict):
            return SourceProblem(Reason.GATEWAY_UNAVAILABLE, "the model gateway did not answer with an object"), None
        if answer.status_code == 200:
            return _verified(found, model, version, manifest)
        message = str(found.get("message") or f"the model gateway answered {answer.status_code}")[:1024]
        return SourceProblem(_reason(answer.status_code, found.get("reason")), message), None


def _reason(status: int, told: object) -> Reason:
    """What the gateway refuses about the release, or says of MLflow; everything else is its own trouble."""
    reasons = {409: Reason.RELEASE_CHANGED, 422: Reason.RELEASE_REFUSED}
    passed = {reason.value: reason for reason in (*_REASONS.values(), Reason.SOURCE_UNAVAILABLE)}
    return reasons.get(status) or passed.get(str(told), Reason.GATEWAY_UNAVAILABLE)


def _verified(
    found: dict[str, Any], model: str, version: int, manifest: str
) -> tuple[ReleaseFacts | SourceProblem, str | None]:
    """Only what was asked for counts as an answer."""
    try:
        release, trust = Release.model_validate(found["release"]), found.get("trust")
    except (KeyError, ValidationError) as error:
        problem = f"the model gateway gave a release that cannot be read: {error}"
        return SourceProblem(Reason.GATEWAY_UNAVAILABLE, problem[:1024]), None
    named = (release.registered_model, release.version, found.get("manifest"))
    if named != (model, version, manifest) or not (trust is None or is_digest(str(trust))):
        problem = f"the model gateway answered {named} when asked for {(model, version, manifest)}"
        return SourceProblem(Reason.GATEWAY_UNAVAILABLE, problem[:1024]), None
    return ReleaseFacts(release, manifest), trust


async def resolve(
    source: Source, registry: mlflow.MlflowRegistry, gateway: Gateway
) -> tuple[ReleaseFacts | SourceProblem, str | None]:
    """Ask MLflow, then the gateway. Versions without the manifest tag do not exist: publishing sets it last."""
    model = source.registered_model
    try:
        if source.alias is not None:
            found = await registry.alias(model, source.alias)
        else:
            found = await registry.version(model, source.version or 0)
    except mlflow.MlflowError as error:
        return SourceProblem(_REASONS.get(type(error), Reason.SOURCE_UNAVAILABLE), str(error)), None
    manifest = found.tags.get(names.TAG_MANIFEST, "")
    if not is_digest(manifest):
        message = f"{model} version {found.version} has no tag {names.TAG_MANIFEST}: it is not published"
        return SourceProblem(Reason.NOT_PUBLISHED, message), None
    return await gateway.release(model, found.version, manifest)
