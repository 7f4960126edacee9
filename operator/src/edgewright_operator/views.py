"""What the operator keeps of each object that it watches: slotted, frozen, and shared where nodes are alike.

Bytes are decoded straight into these; 10,000 EdgeNodes as dicts would weigh 151 MB.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TypeVar

import msgspec
from pydantic import ValidationError

from edgewright_contract.edgenode import EdgeNodeSpec, Hardware, ModelStatus
from edgewright_contract.models import first_fault

T = TypeVar("T")

_SHARED = 4096
"""Distinct pieces kept for sharing; nodes of one class in one state write the same bytes."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """A Node that asks for an agent."""

    name: str
    version: str
    uid: str
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class EdgeNodeView:
    """An EdgeNode. `version` is its resourceVersion; `problem` says what cannot be read, else it is empty."""

    name: str
    version: str
    uid: str
    labels: dict[str, str]
    owners: tuple[str, ...]
    spec: EdgeNodeSpec | None
    hardware: Hardware | None
    models: tuple[ModelStatus, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class LeaseView:
    """A heartbeat: when it was last renewed, by its writer's clock."""

    name: str
    version: str
    renewed: datetime | None


@dataclass(frozen=True, slots=True)
class NamespaceView:
    """A namespace and its annotations."""

    name: str
    version: str
    annotations: dict[str, str]


class _Owner(msgspec.Struct):
    uid: str = ""


class _Metadata(msgspec.Struct, rename="camel"):
    """The part of metadata that is needed of any object."""

    name: str
    resource_version: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[_Owner] | None = None


class _Plain(msgspec.Struct):
    metadata: _Metadata


class _Status(msgspec.Struct):
    hardware: msgspec.Raw = msgspec.Raw()
    models: list[msgspec.Raw] = []


class _EdgeNode(msgspec.Struct):
    metadata: _Metadata
    spec: msgspec.Raw = msgspec.Raw(b"{}")
    status: msgspec.Raw = msgspec.Raw(b"{}")


class _LeaseSpec(msgspec.Struct, rename="camel"):
    renew_time: datetime | None = None


class _Lease(msgspec.Struct):
    metadata: _Metadata
    spec: _LeaseSpec | None = None


_plain = msgspec.json.Decoder(_Plain)
_edge_node = msgspec.json.Decoder(_EdgeNode)
_status = msgspec.json.Decoder(_Status)
_lease = msgspec.json.Decoder(_Lease)


def node(data: bytes | msgspec.Raw) -> NodeView:
    """A Node, or its metadata alone."""
    found = _plain.decode(data).metadata
    return NodeView(found.name, found.resource_version, found.uid, _interned(found.labels))


def namespace(data: bytes | msgspec.Raw) -> NamespaceView:
    """A namespace, or its metadata alone."""
    found = _plain.decode(data).metadata
    return NamespaceView(found.name, found.resource_version, found.annotations or {})


def lease(data: bytes | msgspec.Raw) -> LeaseView:
    """A Lease."""
    found = _lease.decode(data)
    renewed = found.spec.renew_time if found.spec else None
    return LeaseView(found.metadata.name, found.metadata.resource_version, renewed)


def edge_node(data: bytes | msgspec.Raw) -> EdgeNodeView:
    """An EdgeNode; what its agent wrote is foreign input: a piece that cannot be read is left out and named."""
    found, problems = _edge_node.decode(data), list[str]()
    status = _piece(_status.decode, found.status, "status", problems) or _Status()
    metadata, absent = found.metadata, (b"", b"null")
    hardware = None if bytes(status.hardware) in absent else _piece(_hardware, status.hardware, "hardware", problems)
    models = [_piece(_model, entry, "status.models", problems) for entry in status.models]
    return EdgeNodeView(
        metadata.name,
        metadata.resource_version,
        metadata.uid,
        _interned(metadata.labels),
        tuple(owner.uid for owner in metadata.owner_references or []),
        _piece(_spec, found.spec, "spec", problems),
        hardware,
        tuple(entry for entry in models if entry is not None),
        "; ".join(problems)[:512],
    )


def _piece(reader: Callable[[bytes], T], raw: msgspec.Raw, where: str, problems: list[str]) -> T | None:
    try:
        return reader(bytes(raw))
    except msgspec.ValidationError as error:
        problems.append(f"{where}: {error}")
    except ValidationError as error:
        problems.append(f"{where}: {first_fault(error)}")
    return None


@lru_cache(maxsize=_SHARED)
def _spec(data: bytes) -> EdgeNodeSpec:
    return EdgeNodeSpec.model_validate_json(data)


@lru_cache(maxsize=_SHARED)
def _hardware(data: bytes) -> Hardware:
    return Hardware.model_validate_json(data)


@lru_cache(maxsize=_SHARED)
def _model(data: bytes) -> ModelStatus:
    return ModelStatus.model_validate_json(data)


def _interned(labels: dict[str, str] | None) -> dict[str, str]:
    return {sys.intern(key): sys.intern(value) for key, value in (labels or {}).items()}
