"""Who asks: a token is reviewed by the API server, and a node may have only what its own EdgeNode names."""

import fnmatch
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import httpx2
from pydantic import ValidationError

from edgewright_contract import names
from edgewright_contract.edgenode import AssignedModel, EdgeNodeSpec
from edgewright_operator import mlflow
from edgewright_operator.gateway.budget import Budget
from edgewright_operator.gateway.intake import Intake, ReleaseRefused, Taken

REVIEW_SECONDS: Final = 10.0
"""A token of a deleted Node must not live on here longer than in the API server's own cache."""
REFUSED_SECONDS: Final = 5.0
"""A refused token is not asked about again so soon: a broken node must not load the API server."""
NODE_SECONDS: Final = 2.0
"""An EdgeNode that names the digest is believed so long; one that does not is read again at once."""
STRANGERS_PER_SECOND: Final = 50.0
"""So often the API server is asked about tokens that were never good here; a fleet of 10,000 that knocks at once is
through in 190 s, and whoever sends junk of ever new spelling costs it no more than this."""
STRANGERS_AT_ONCE: Final = 500.0
MAX_CACHED: Final = 4096
MAX_ACCEPTED: Final = 65_536
"""Tokens that were good: more than a fleet has, so that its nodes are no strangers while junk comes in."""
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Unauthenticated(Exception):
    """No token, or one that the API server does not accept for this audience."""


class Forbidden(Exception):
    """A good token that may not have this."""


class Busy(Exception):
    """Too many unknown tokens: whoever is genuine asks again in a moment."""


class ApiUnavailable(Exception):
    """The API server cannot be asked."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a token stands for."""

    username: str
    node: str | None


@dataclass(slots=True)
class Access:
    """Reviews tokens against the API server that `client` reaches.

    accounts: shell patterns of the users that are nodes: a claim of a node is believed only from them.
    """

    client: httpx2.AsyncClient
    operator: str
    accounts: Sequence[str]
    clock: Callable[[], float] = time.monotonic
    accepted: dict[bytes, tuple[float, Caller]] = field(default_factory=dict)
    refused: dict[bytes, float] = field(default_factory=dict)
    specs: dict[str, tuple[float, EdgeNodeSpec]] = field(default_factory=dict)
    strangers: Budget = field(init=False)

    def __post_init__(self) -> None:
        """Tokens that were never good have a budget of their own."""
        self.strangers = Budget(STRANGERS_PER_SECOND, STRANGERS_AT_ONCE, self.clock)

    async def caller(self, authorization: str) -> Caller:
        """Whom the Authorization header stands for.

        Raises:
            Unauthenticated, ApiUnavailable, Busy
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated(f"a bearer token of audience {names.GATEWAY_AUDIENCE} is needed")
        key = hashlib.sha256(token.strip().encode()).digest()
        known = self.accepted.get(key)
        if known is not None and self.clock() < known[0]:
            return known[1]
        found = None
        if self.clock() >= self.refused.get(key, 0.0):
            if known is None and not self.strangers.take():
                raise Busy("too many unknown tokens are asked about just now: ask again in a second")
            found = await self._review(token.strip())
            if found is not None:
                _keep(self.accepted, key, (self.clock() + REVIEW_SECONDS, found), MAX_ACCEPTED)
                return found
            self.accepted.pop(key, None)
            _keep(self.refused, key, self.clock() + REFUSED_SECONDS)
        raise Unauthenticated(f"the token is not valid for audience {names.GATEWAY_AUDIENCE}")

    async def _review(self, token: str) -> Caller | None:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [names.GATEWAY_AUDIENCE]},
        }
        answer = await self._send("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body)
        status = (answer or {}).get("status") or {}
        if not status.get("authenticated") or names.GATEWAY_AUDIENCE not in (status.get("audiences") or []):
            return None
        user = status.get("user") or {}
        nodes = (user.get("extra") or {}).get(names.EXTRA_NODE_NAME) or []
        return Caller(str(user.get("username", "")), str(nodes[0]) if nodes else None)

    def require_operator(self, caller: Caller) -> None:
        """Only the operator asks for releases.

        Raises:
            Forbidden
        """
        if caller.username != self.operator:
            raise Forbidden(f"{caller.username} may not ask for releases: only {self.operator} does")

    def require_part(self, caller: Caller) -> None:
        """The operator, or a node's agent.

        Raises:
            Forbidden
        """
        if caller.username != self.operator:
            self._node(caller)

    def _node(self, caller: Caller) -> str:
        if not any(fnmatch.fnmatchcase(caller.username, pattern) for pattern in self.accounts):
            raise Forbidden(f"{caller.username} is no agent: accepted are {', '.join(self.accounts)}")
        if caller.node is None:
            raise Forbidden(f"the token of {caller.username} is not bound to a Node")
        return caller.node

    async def require(self, caller: Caller, digest: str, intake: Intake) -> None:
        """A file is for a node if its EdgeNode names it; the release that it belongs to is here then.

        Named are trust.json, the manifests, their small files, and the variants that stand there by name.

        Raises:
            Forbidden: no node token, no such EdgeNode, or not named there.
            ApiUnavailable, and what Intake.known raises
        """
        node = self._node(caller)
        until, spec = self.specs.get(node, (0.0, EdgeNodeSpec()))
        if self.clock() < until and await _named(spec, digest, intake):
            return
        spec = await self._spec(node)
        _keep(self.specs, node, (self.clock() + NODE_SECONDS, spec))
        if not await _named(spec, digest, intake):
            raise Forbidden(f"EdgeNode {node} does not name {digest}")

    async def _spec(self, node: str) -> EdgeNodeSpec:
        found = await self._send("GET", f"/apis/{names.API_VERSION}/{names.EDGE_NODES}/{node}")
        if found is None:
            raise Forbidden(f"there is no EdgeNode {node}")
        try:
            return EdgeNodeSpec.model_validate(found.get("spec") or {})
        except ValidationError:
            raise Forbidden(f"EdgeNode {node} cannot be read") from None

    async def _send(self, method: str, path: str, body: object = None) -> dict[str, Any] | None:
        try:
            answer = await self.client.request(method, path, json=body)
            if answer.status_code == 404:
                return None
            if answer.status_code >= 400:
                raise ApiUnavailable(f"the API server answered {answer.status_code}")
            return dict(answer.json())
        except (httpx2.HTTPError, ValueError, OSError) as error:
            raise ApiUnavailable(f"the API server cannot be asked: {type(error).__name__}") from None


async def _named(spec: EdgeNodeSpec, digest: str, intake: Intake) -> bool:
    """Whether the spec names the digest. One broken release does not hide another."""
    if digest == spec.trust:
        await intake.trusted(strict=False)  # brings it into the cache
        return True
    problem: Exception | None = None
    for model in spec.models:
        for manifest, variants in _wished(model):
            try:
                taken = await intake.known(model.registered_model, manifest)
            except ReleaseRefused as error:
                problem = Forbidden(f"release {manifest} is refused: {error}")
            except (mlflow.MlflowError, OSError) as error:
                problem = error
            else:
                if digest in _digests(taken, variants):
                    return True
    if problem is not None:
        raise problem
    return False


def _wished(model: AssignedModel) -> list[tuple[str, set[str]]]:
    found = [(model.live.manifest, {model.live.variant})] if model.live else []
    return found + ([(model.benchmark.manifest, set(model.benchmark.variants))] if model.benchmark else [])


def _digests(taken: Taken, variants: set[str]) -> set[str]:
    small = {digest for path, digest in taken.manifest.files.items() if "/" not in path}
    return {taken.manifest.digest} | small | {one.digest for one in taken.release.variants if one.name in variants}


def _keep(cache: dict[_Key, _Value], key: _Key, value: _Value, most: int = MAX_CACHED) -> None:
    """The oldest goes first, so that a flood of bad tokens costs memory of one size."""
    cache.pop(key, None)
    while len(cache) >= most:
        cache.pop(next(iter(cache)))
    cache[key] = value
