"""The operator's reads and writes by kind; each write carries the resourceVersion that it was decided on."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from edgewright_contract import names
from edgewright_contract.timestamps import rfc3339
from edgewright_operator import views
from edgewright_operator.api import Api, Body, ClusterError, Conflict
from edgewright_operator.views import EdgeNodeView, NodeView

Object = dict[str, Any]

_GROUP: Final = f"/apis/{names.API_VERSION}"
EDGE_NODES: Final = f"{_GROUP}/{names.EDGE_NODES}"
COMPRESSED_MODELS: Final = f"{_GROUP}/{names.COMPRESSED_MODELS}"
NODES: Final = "/api/v1/nodes"
NAMESPACES: Final = "/api/v1/namespaces"
LEASES: Final = f"/apis/coordination.k8s.io/v1/namespaces/{names.NAMESPACE}/leases"
_UNTRACKED: Final[list[Object]] = [{}]
"""As managedFields: who wrote which field is kept for nobody, and half of the object is saved (decision 49)."""
_METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_CLUSTER_EVENTS: Final = "default"
"""Namespace of Events about cluster-scoped objects."""


class Cluster:
    """`writes`: how many writes may be under way at once."""

    def __init__(self, api: Api, writes: int = 16) -> None:
        self.api = api
        self.at_once = writes
        self._writes = asyncio.Semaphore(writes)

    async def compressed_models(self) -> list[Object]:
        """All CompressedModels."""
        found: list[Object] = []
        query = {"limit": "100"}
        while True:
            body = json.loads(await self.api.read(COMPRESSED_MODELS, **query))
            found += body.get("items") or []
            if not (following := body["metadata"].get("continue")):
                return found
            query["continue"] = following

    async def compressed_model(self, namespace: str, name: str) -> Object | None:
        """One CompressedModel as it is now, or none."""
        path = f"{_GROUP}/namespaces/{namespace}/{names.COMPRESSED_MODELS}/{name}"
        data = await self._found(path)
        return None if data is None else dict(json.loads(data))

    async def edge_node(self, name: str) -> EdgeNodeView | None:
        """One EdgeNode as it is now, or none."""
        data = await self._found(f"{EDGE_NODES}/{name}")
        return None if data is None else views.edge_node(data)

    async def node(self, name: str) -> NodeView | None:
        """One Node as it is now, or none."""
        data = await self._found(f"{NODES}/{name}", accept=_METADATA)
        return None if data is None else views.node(data)

    async def create_edge_node(self, node: NodeView) -> None:
        """The EdgeNode of a Node, owned by it."""
        metadata = {"name": node.name, "labels": node.labels, "ownerReferences": _owned_by(node)}
        body = {"apiVersion": names.API_VERSION, "kind": "EdgeNode", "metadata": metadata, "spec": {}}
        with suppress(Conflict):  # it is there, and the watch is about to say so
            await self._write("POST", EDGE_NODES, body, accept=_METADATA)

    async def create_heartbeat(self, node: NodeView) -> None:
        """The Lease that a Node's agent renews, owned by the Node; agents may not create one."""
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": node.name, "ownerReferences": _owned_by(node)},
            "spec": {"leaseDurationSeconds": 3 * names.HEARTBEAT_SECONDS},
        }
        with suppress(Conflict):  # it lived on from an earlier EdgeNode of that name
            await self._write("POST", LEASES, lease)

    async def relabel(self, edge_node: EdgeNodeView, labels: Mapping[str, str]) -> None:
        """Mirror the Node's labels; a label that went away is taken away.

        Raises:
            Conflict: the EdgeNode changed since it was read.
        """
        gone = {key: None for key in edge_node.labels if key not in labels}
        body = {"metadata": {"labels": {**labels, **gone}, "resourceVersion": edge_node.version}}
        path = f"{EDGE_NODES}/{edge_node.name}"
        await self._write("PATCH", path, body, content=Body.MERGE, accept=_METADATA)

    async def delete_edge_node(self, edge_node: EdgeNodeView) -> None:
        """Of a Node that is gone: garbage collection may not run, so it is deleted outright.

        Raises:
            Conflict: another EdgeNode stands under that name by now.
        """
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": edge_node.uid}}
        try:
            await self._write("DELETE", f"{EDGE_NODES}/{edge_node.name}", options)
        except ClusterError as error:
            if error.status != 404:
                raise

    async def write_spec(self, edge_node: EdgeNodeView, spec: Object) -> str:
        """Replace a node's spec, if nobody wrote in between; the new resourceVersion. Absent fields stay as they are.

        Raises:
            Conflict: the EdgeNode changed since it was read.
        """
        body = {"metadata": {"resourceVersion": edge_node.version, "managedFields": _UNTRACKED}, "spec": spec}
        path = f"{EDGE_NODES}/{edge_node.name}"
        data = await self._write("PATCH", path, body, content=Body.MERGE, accept=_METADATA)
        return views.node(data).version

    async def write_status(self, model: Object, status: Object) -> Object:
        """Replace the status of a CompressedModel, if nobody wrote in between; the object as it is now.

        Raises:
            Conflict: the object changed since it was read.
        """
        metadata = model["metadata"]
        path = f"{_GROUP}/namespaces/{metadata['namespace']}/{names.COMPRESSED_MODELS}/{metadata['name']}/status"
        typed = {"apiVersion": names.API_VERSION, "kind": "CompressedModel", **model, "status": status}
        return dict(json.loads(await self._write("PUT", path, typed)))

    async def create_event(self, about: Object, reason: str, message: str, *, warning: bool, now: datetime) -> None:
        """An Event about an object, of which `about` gives kind, metadata.name, uid and (if any) namespace."""
        metadata, at = about["metadata"], rfc3339(now)
        namespace = metadata.get("namespace") or _CLUSTER_EVENTS
        body = {
            "metadata": {"generateName": f"{metadata['name']}.", "namespace": namespace},
            "involvedObject": {
                "apiVersion": names.API_VERSION,
                "kind": about.get("kind", "CompressedModel"),
                **{key: metadata[key] for key in ("name", "namespace", "uid") if metadata.get(key)},
            },
            "reason": reason,
            "message": message[:1024],
            "type": "Warning" if warning else "Normal",
            "source": {"component": "edgewright-operator"},
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }
        await self._write("POST", f"{NAMESPACES}/{namespace}/events", body)

    async def lease(self, name: str) -> Object | None:
        """One Lease, or none."""
        data = await self._found(f"{LEASES}/{name}")
        return None if data is None else dict(json.loads(data))

    async def write_lease(self, lease: Object, *, create: bool) -> None:
        """Create or replace a Lease; the resourceVersion in it fences out a second writer."""
        if create:
            await self.api.write("POST", LEASES, lease, fenced=False)
        else:
            await self.api.write("PUT", f"{LEASES}/{lease['metadata']['name']}", lease, fenced=False)

    async def _found(self, path: str, **accept: str) -> bytes | None:
        try:
            return await self.api.read(path, **accept)
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    async def _write(self, method: str, path: str, body: Object, **how: Any) -> bytes:
        async with self._writes:
            return await self.api.write(method, path, body, **how)


def _owned_by(node: NodeView) -> list[Object]:
    return [{"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node.uid}]
