"""The operator's calls to the API server: reads in pages, writes with the resourceVersion they were decided on."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import httpx2

from edgewright_contract import names
from edgewright_contract.timestamps import rfc3339
from edgewright_operator import metrics

_MERGE: Final = {"Content-Type": "application/merge-patch+json"}
_APPLY: Final = {"Content-Type": "application/apply-patch+yaml"}
_OWNER: Final = {"fieldManager": "edgewright-operator", "force": "true"}
_GROUP: Final = f"/apis/{names.API_VERSION}"
_NODES: Final = "/api/v1/nodes"
_LEASES: Final = f"/apis/coordination.k8s.io/v1/namespaces/{names.NAMESPACE}/leases"
_PAGE: Final = 500

Object = dict[str, Any]


class ClusterError(RuntimeError):
    """The API server did not do what was asked; the next round tries again from fresh reads."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Conflict(ClusterError):
    """Somebody else wrote first: what was decided is out of date."""


class Cluster:
    """Thin and stateless; the client stays the caller's."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def compressed_models(self) -> list[Object]:
        """All CompressedModels."""
        return await self._list(f"{_GROUP}/{names.COMPRESSED_MODELS}")

    async def edge_nodes(self) -> list[Object]:
        """All EdgeNodes."""
        return await self._list(f"{_GROUP}/{names.EDGE_NODES}")

    async def nodes(self) -> list[Object]:
        """Nodes that ask for an agent."""
        return await self._list(_NODES, labelSelector=f"{names.LABEL_AGENT}=true")

    async def leases(self) -> list[Object]:
        """Heartbeats, and the election Lease among them."""
        return await self._list(_LEASES)

    async def namespace(self, name: str) -> Object:
        """One namespace."""
        return await self._send("GET", f"/api/v1/namespaces/{name}")

    async def create_edge_node(self, node: Object) -> None:
        """The EdgeNode of a Node, owned by it."""
        name = node["metadata"]["name"]
        labels = dict(node["metadata"].get("labels") or {})
        metadata = {"name": name, "labels": labels, "ownerReferences": _owned_by(node)}
        body = {"apiVersion": names.API_VERSION, "kind": "EdgeNode", "metadata": metadata, "spec": {}}
        await self._send("POST", f"{_GROUP}/{names.EDGE_NODES}", json=body)

    async def create_heartbeat(self, node: Object) -> None:
        """The Lease that a Node's agent renews, owned by the Node; agents may not create one."""
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": node["metadata"]["name"], "ownerReferences": _owned_by(node)},
            "spec": {"leaseDurationSeconds": 3 * names.HEARTBEAT_SECONDS},
        }
        with suppress(Conflict):  # it lived on from an earlier EdgeNode of that name
            await self._send("POST", _LEASES, json=lease)

    async def relabel(self, edge_node: Object, labels: Mapping[str, str]) -> None:
        """Mirror the Node's labels; a label that went away is taken away."""
        metadata = edge_node["metadata"]
        gone = {key: None for key in metadata.get("labels") or {} if key not in labels}
        body = {"metadata": {"labels": {**labels, **gone}, "resourceVersion": metadata["resourceVersion"]}}
        await self._send("PATCH", f"{_GROUP}/{names.EDGE_NODES}/{metadata['name']}", json=body, headers=_MERGE)

    async def delete_edge_node(self, name: str) -> None:
        """Of a Node that is gone: garbage collection may not run, so it is deleted outright."""
        await self._send("DELETE", f"{_GROUP}/{names.EDGE_NODES}/{name}")

    async def write_spec(self, edge_node: Object, spec: Object) -> Object:
        """Apply a node's spec as its field manager, if nobody wrote in between.

        Raises:
            Conflict: the EdgeNode changed since it was read.
        """
        metadata = edge_node["metadata"]
        name = metadata["name"]
        fenced = {"name": name, "resourceVersion": metadata["resourceVersion"]}
        body = {"apiVersion": names.API_VERSION, "kind": "EdgeNode", "metadata": fenced, "spec": spec}
        path = f"{_GROUP}/{names.EDGE_NODES}/{name}"
        return await self._send("PATCH", path, params=_OWNER, json=body, headers=_APPLY)

    async def write_status(self, model: Object, status: Object) -> None:
        """Replace the status of a CompressedModel, if nobody wrote in between.

        Raises:
            Conflict: the object changed since it was read.
        """
        metadata = model["metadata"]
        path = f"{_GROUP}/namespaces/{metadata['namespace']}/{names.COMPRESSED_MODELS}/{metadata['name']}/status"
        await self._send("PUT", path, json={**model, "status": status})

    async def create_event(self, model: Object, reason: str, message: str, *, warning: bool, now: datetime) -> None:
        """An Event about a CompressedModel."""
        metadata = model["metadata"]
        at = rfc3339(now)
        body = {
            "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": names.API_VERSION,
                "kind": "CompressedModel",
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "reason": reason,
            "message": message[:1024],
            "type": "Warning" if warning else "Normal",
            "source": {"component": "edgewright-operator"},
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }
        await self._send("POST", f"/api/v1/namespaces/{metadata['namespace']}/events", json=body)

    async def lease(self, name: str) -> Object | None:
        """One Lease, or none."""
        try:
            return await self._send("GET", f"{_LEASES}/{name}")
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    async def write_lease(self, lease: Object, *, create: bool) -> None:
        """Create or replace a Lease; the resourceVersion in it fences out a second writer."""
        if create:
            await self._send("POST", _LEASES, json=lease)
        else:
            await self._send("PUT", f"{_LEASES}/{lease['metadata']['name']}", json=lease)

    async def _list(self, path: str, **query: str) -> list[Object]:
        items: list[Object] = []
        following = ""
        while True:
            page = {"limit": str(_PAGE), **query, **({"continue": following} if following else {})}
            body = await self._send("GET", path, params=page)
            items += body.get("items") or []
            following = body["metadata"].get("continue") or ""
            if not following:
                return items

    async def _send(self, method: str, path: str, **arguments: Any) -> Object:
        try:
            answer = await self._client.request(method, path, **arguments)
        except httpx2.HTTPError as error:
            metrics.REQUESTS.labels("unanswered").inc()
            raise ClusterError(f"{method} {path}: {type(error).__name__}: {error}") from None
        metrics.REQUESTS.labels("ok" if answer.is_success else "refused").inc()
        if answer.status_code == 409:
            raise Conflict(f"{method} {path}: {_message(answer)}", 409)
        if answer.status_code >= 400:
            raise ClusterError(f"{method} {path}: {answer.status_code} {_message(answer)}", answer.status_code)
        return dict(answer.json())


def _owned_by(node: Object) -> list[Object]:
    metadata = node["metadata"]
    return [{"apiVersion": "v1", "kind": "Node", "name": metadata["name"], "uid": metadata["uid"]}]


def _message(answer: httpx2.Response) -> str:
    try:
        return str(answer.json().get("message", ""))
    except ValueError:
        return answer.text[:200]
