"""A small door to the API server for the demo and the tests: apply manifests, make Nodes, namespaces and tokens.

Plain HTTP on purpose: it must be able to say exactly what a test wants said (impersonation, patch types, dry runs).
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx2
import yaml

from edgewright_local.errors import ClusterError

FIELD_MANAGER = "edgewright-local"
_SETTLE_SECONDS = 30.0
_POLL_SECONDS = 0.1
# What others need comes first, whatever the order of the files.
_FIRST_KINDS = ("CustomResourceDefinition", "Namespace")

Manifest = Mapping[str, Any]


class ClusterApi:
    """Calls with the rights of one token, or of a client certificate (files of certificate and key).

    `client` is an `httpx2.Client` whose base URL is the API server.
    """

    def __init__(self, url: str, ca: Path, token: str, certificate: tuple[Path, Path] | None = None) -> None:
        trusted = ssl.create_default_context(cafile=str(ca))
        if certificate is not None:
            trusted.load_cert_chain(*certificate)
        self.client = httpx2.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            verify=trusted,
            timeout=30.0,
            trust_env=False,  # a proxy in the environment must not see loopback traffic
        )
        self._resources: dict[str, list[dict[str, Any]]] = {}

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def ready(self) -> bool:
        """Whether the API server answers that it is ready."""
        try:
            return self.client.get("/readyz", timeout=2.0).status_code == httpx2.codes.OK
        except httpx2.HTTPError:
            return False

    def request(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """The JSON answer to one call.

        Raises:
            ClusterError: any answer but 2xx; holds the server's message.
        """
        answer = self.client.request(method, path, **arguments)
        if answer.is_success:
            body: dict[str, Any] = answer.json()
            return body
        raise ClusterError(f"{method} {path}: {answer.status_code} {_message(answer)}")

    def apply(self, documents: Iterable[Manifest], namespace: str = "default") -> list[dict[str, Any]]:
        """Server-side apply, CRDs (waiting until each serves) and Namespaces first; give back what is stored now.

        Admission policies act about a second later: see `wait_for_policy`. `namespace` is for namespaced documents
        that name none.

        Raises:
            ClusterError: names the kind and name that were refused, and why.
        """
        ordered = sorted(documents, key=lambda document: _rank(document["kind"]))
        stored: list[dict[str, Any]] = []
        for document in ordered:
            parameters = {"fieldManager": FIELD_MANAGER, "force": "true"}
            headers = {"Content-Type": "application/apply-patch+yaml"}
            body = yaml.safe_dump(dict(document))
            path = self.path(document, namespace)
            stored.append(self.request("PATCH", path, params=parameters, headers=headers, content=body))
            if document["kind"] == "CustomResourceDefinition":
                self._wait_until_served(stored[-1])
        return stored

    def delete(self, documents: Iterable[Manifest], namespace: str = "default") -> None:
        """Ask for the deletion of each document, last first; what is not there is fine. Does not wait."""
        for document in reversed(list(documents)):
            path = self.path(document, namespace)
            answer = self.client.delete(path)
            if not answer.is_success and answer.status_code != httpx2.codes.NOT_FOUND:
                raise ClusterError(f"DELETE {path}: {answer.status_code} {_message(answer)}")

    def path(self, document: Manifest, namespace: str = "default") -> str:
        """The URL path of a manifest's object.

        Raises:
            ClusterError: the cluster does not know the kind.
        """
        version, kind, metadata = document["apiVersion"], document["kind"], document["metadata"]
        resource = self._resource(version, kind)
        root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        if resource["namespaced"]:
            root += f"/namespaces/{metadata.get('namespace', namespace)}"
        return f"{root}/{resource['name']}/{metadata['name']}"

    def create_namespace(self, name: str, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Create a Namespace."""
        return self._create("/api/v1/namespaces", "Namespace", {"name": name, "annotations": dict(annotations or {})})

    def create_node(self, name: str, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Create a Node object without a kubelet; give back the stored object (with its UID)."""
        return self._create("/api/v1/nodes", "Node", {"name": name, "labels": dict(labels or {})})

    def create_service_account(self, namespace: str, name: str) -> dict[str, Any]:
        """Create a ServiceAccount."""
        return self._create(f"/api/v1/namespaces/{namespace}/serviceaccounts", "ServiceAccount", {"name": name})

    def service_account_token(
        self, namespace: str, name: str, audience: str | None = None, node: str | None = None, seconds: int = 3600
    ) -> str:
        """A token by TokenRequest, for `audience` (None: the API server's own), bound to the Node object `node`.

        Raises:
            ClusterError: no such ServiceAccount or Node, or a life below ten minutes.
        """
        spec: dict[str, Any] = {"expirationSeconds": seconds}
        if audience is not None:
            spec["audiences"] = [audience]
        if node is not None:
            uid = self.request("GET", f"/api/v1/nodes/{node}")["metadata"]["uid"]
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = self.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", json=body)
        token: str = answer["status"]["token"]
        return token

    def wait_for_policy(self, probe: Callable[[], bool], seconds: float = _SETTLE_SECONDS) -> float:
        """Repeat `probe` (a call that the new policy must refuse; True = it was refused) and give back the seconds.

        Raises:
            ClusterError: the policy did not act in time.
        """
        return _wait(probe, seconds, "the admission policy does not act: the probing request still passes")

    def _create(self, path: str, kind: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        return self.request("POST", path, json={"apiVersion": "v1", "kind": kind, "metadata": metadata})

    def _resource(self, version: str, kind: str) -> dict[str, Any]:
        for attempt in ("cached", "fresh"):
            if attempt == "fresh" or version not in self._resources:
                root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
                answer = self.client.get(root)
                if not answer.is_success and answer.status_code != httpx2.codes.NOT_FOUND:
                    raise ClusterError(f"GET {root}: {answer.status_code} {_message(answer)}")
                self._resources[version] = answer.json()["resources"] if answer.is_success else []
            for resource in self._resources[version]:
                if resource["kind"] == kind and "/" not in resource["name"]:
                    found: dict[str, Any] = resource
                    return found
        raise ClusterError(f"the cluster knows no kind {kind} in {version}; apply its CustomResourceDefinition first")

    def _wait_until_served(self, definition: Manifest) -> None:
        """Established is not enough: each served version's list must answer, in discovery and by itself."""
        spec, name = definition["spec"], definition["metadata"]["name"]
        own = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        _wait(lambda: _established(self.request("GET", own)), _SETTLE_SECONDS, f"the CRD {name} is not established")
        for version in (entry["name"] for entry in spec["versions"] if entry["served"]):
            root = f"/apis/{spec['group']}/{version}"
            _wait(
                lambda root=root: self._serves(root, spec["names"]["plural"]),  # type: ignore[misc]
                _SETTLE_SECONDS,
                f"the CRD {name} is established but {root} does not serve it",
            )
            self._resources.pop(f"{spec['group']}/{version}", None)

    def _serves(self, root: str, plural: str) -> bool:
        listed = self.client.get(f"{root}/{plural}", params={"limit": 1})
        found = self.client.get(root)
        return (
            listed.is_success
            and found.is_success
            and any(resource["name"] == plural for resource in found.json()["resources"])
        )


def read_manifests(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file, or of all `*.yaml` below a folder in the order of their names.

    Raises:
        ClusterError: a document is no manifest; says which file.
    """
    files = sorted(path.rglob("*.yaml")) if path.is_dir() else [path]
    documents: list[dict[str, Any]] = []
    for file in files:
        for document in yaml.safe_load_all(file.read_text()):
            if document is None:
                continue
            if not isinstance(document, dict) or not {"apiVersion", "kind", "metadata"} <= document.keys():
                raise ClusterError(f"{file} holds a document without apiVersion, kind and metadata")
            documents.append(document)
    return documents


def _wait(probe: Callable[[], bool], seconds: float, complaint: str) -> float:
    began = time.monotonic()
    while not probe():
        if time.monotonic() - began > seconds:
            raise ClusterError(f"{complaint} after {seconds:.0f} s")
        time.sleep(_POLL_SECONDS)
    return time.monotonic() - began


def _rank(kind: str) -> int:
    return _FIRST_KINDS.index(kind) if kind in _FIRST_KINDS else len(_FIRST_KINDS)


def _established(definition: Manifest) -> bool:
    conditions = definition.get("status", {}).get("conditions") or []  # null at first
    return any(condition["type"] == "Established" and condition["status"] == "True" for condition in conditions)


def _message(answer: httpx2.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:500]
