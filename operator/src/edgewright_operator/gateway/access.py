"""Who asks: a token is reviewed by the API server, and a node may have only what its own EdgeNode names."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
from pydantic import ValidationError

from edgewright_contract import names
from edgewright_contract.edgenode import EdgeNodeSpec
from edgewright_contract.release import Release
from edgewright_operator.gateway.intake import Intake

REVIEW_SECONDS = 10.0
"""A token of a deleted Node must not live on here longer than in the API server's own cache."""
MAX_CACHED = 4096


class Unauthenticated(Exception):
    """No token, or one that the API server does not accept for this audience."""


class Forbidden(Exception):
    """A good token that may not have this."""


class ApiUnavailable(Exception):
    """The API server cannot be asked."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a token stands for."""

    username: str
    node: str | None


@dataclass(slots=True)
class Access:
    """Reviews tokens against the API server that `client` reaches."""

    client: httpx2.AsyncClient
    clock: Callable[[], float] = time.monotonic
    reviewed: dict[bytes, tuple[float, Caller]] = field(default_factory=dict)

    async def caller(self, authorization: str) -> Caller:
        """Whom the Authorization header stands for.

        Raises:
            Unauthenticated, ApiUnavailable
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated(f"a bearer token of audience {names.GATEWAY_AUDIENCE} is needed")
        key = hashlib.sha256(token.encode()).digest()
        known = self.reviewed.get(key)
        if known is not None and self.clock() < known[0]:
            return known[1]
        found = await self._review(token)
        if len(self.reviewed) >= MAX_CACHED:
            self.reviewed.clear()
        self.reviewed[key] = (self.clock() + REVIEW_SECONDS, found)
        return found

    async def _review(self, token: str) -> Caller:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [names.GATEWAY_AUDIENCE]},
        }
        status = (await self._send("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body)).get("status") or {}
        if not status.get("authenticated") or names.GATEWAY_AUDIENCE not in (status.get("audiences") or []):
            raise Unauthenticated(f"the token is not valid for audience {names.GATEWAY_AUDIENCE}")
        user = status.get("user") or {}
        nodes = (user.get("extra") or {}).get(names.EXTRA_NODE_NAME) or []
        return Caller(str(user.get("username", "")), str(nodes[0]) if nodes else None)

    async def require(self, caller: Caller, digest: str, intake: Intake) -> None:
        """Let a node have what its EdgeNode names: the manifest, its small files, and the named variants.

        Raises:
            Forbidden: no node token, no such EdgeNode, or not named there.
            ApiUnavailable
        """
        if caller.node is None:
            raise Forbidden("a token that is bound to a Node is needed for files")
        found = await self._send("GET", f"/apis/{names.API_VERSION}/{names.EDGE_NODES}/{caller.node}")
        try:
            spec = EdgeNodeSpec.model_validate(found.get("spec") or {})
        except ValidationError:
            raise Forbidden(f"EdgeNode {caller.node} cannot be read") from None
        if digest not in named(spec, intake):
            raise Forbidden(f"EdgeNode {caller.node} does not name {digest}")

    async def _send(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        try:
            answer = await self.client.request(method, path, json=body)
        except httpx2.HTTPError as error:
            raise ApiUnavailable(f"the API server cannot be asked: {type(error).__name__}") from None
        if answer.status_code == 404:
            raise Forbidden("there is no EdgeNode for this token's node")
        if answer.status_code >= 400:
            raise ApiUnavailable(f"the API server answered {answer.status_code}")
        return dict(answer.json())


def named(spec: EdgeNodeSpec, intake: Intake) -> set[str]:
    """Every digest that an EdgeNode's spec stands for."""
    digests = {spec.trust} if spec.trust else set()
    for model in spec.models:
        if model.live is not None:
            digests |= _of(intake, model.live.manifest, {model.live.variant})
        if model.benchmark is not None:
            digests |= _of(intake, model.benchmark.manifest, set(model.benchmark.variants))
    return digests


def _of(intake: Intake, manifest: str, variants: set[str]) -> set[str]:
    taken = intake.taken.get(manifest)
    if taken is None:
        return {manifest}
    small = {digest for path, digest in taken.manifest.files.items() if "/" not in path}
    return {manifest} | small | _files(taken.release, variants)


def _files(release: Release, variants: set[str]) -> set[str]:
    return {variant.digest for variant in release.variants if variant.name in variants}
