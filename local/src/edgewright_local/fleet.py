"""What the cluster says about the demo's nodes: read by the demo, never remembered from what it wished."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from edgewright_contract import names
from edgewright_local.control_plane import ControlPlane
from edgewright_local.errors import LocalPlatformError

NAMESPACE: Final = "default"
MODEL: Final = "nilm"
KEY: Final = f"{NAMESPACE}/{MODEL}"
POLL_SECONDS: Final = 0.5

Objects = Mapping[str, Mapping[str, Any]]
Published = Callable[[str, str], Mapping[str, Any]]
"""The entry of a variant in the release with this manifest: (manifest, variant) -> as in release.json."""


def edge_nodes(plane: ControlPlane) -> dict[str, dict[str, Any]]:
    """All EdgeNodes by name."""
    found = plane.api.request("GET", f"/apis/{names.API_VERSION}/{names.EDGE_NODES}")
    return {item["metadata"]["name"]: item for item in found["items"]}


def compressed_model(plane: ControlPlane) -> dict[str, Any]:
    """The demo's CompressedModel, or {} before it was applied."""
    root = f"/apis/{names.API_VERSION}/namespaces/{NAMESPACE}"
    items = plane.api.request("GET", f"{root}/{names.COMPRESSED_MODELS}")["items"]
    return next((dict(item) for item in items if item["metadata"]["name"] == MODEL), {})


def model_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """What a node's agent reports about the demo's model."""
    models = (node.get("status") or {}).get("models") or []
    return next((dict(model) for model in models if model["name"] == KEY), {})


def live(nodes: Objects, wanted: tuple[str, ...], version: int) -> bool:
    """Whether each wanted node says that this version is live on it."""
    found = [model_of(nodes[name]) for name in wanted if name in nodes]
    return len(found) == len(wanted) and all(
        model.get("state") == "Live" and model.get("live", {}).get("version") == version for model in found
    )


def p95_milliseconds(node: Mapping[str, Any]) -> float | None:
    """What the node measured of the release that is live on it, if it has answered anything with it yet."""
    p95 = (model_of(node).get("figures") or {}).get("p95Microseconds")
    return p95 / 1000 if p95 else None


def row(name: str, node: Mapping[str, Any], published: Published) -> dict[str, Any]:
    """A node's line of the demo's table: what its agent reports, and what its release says of the variant it serves.

    published: answers `variant of manifest`; asked for nodes that serve something only.
    """
    model = model_of(node)
    served = model.get("live") or {}
    release = published(served["manifest"], served["variant"]) if served.get("manifest") else {}
    return {
        "name": name,
        "hardwareClass": ((node.get("status") or {}).get("hardware") or {}).get("class", ""),
        "release": served.get("version"),
        "variant": served.get("variant"),
        "bytes": release.get("bytes"),
        "macroF1": (release.get("accuracy") or {}).get("macroF1"),
        "state": model.get("state"),
        "p95Milliseconds": p95_milliseconds(node),
    }


def serves(node: Mapping[str, Any], manifest: str) -> bool:
    """Whether the node's agent says that it answers with this release."""
    return bool((model_of(node).get("live") or {}).get("manifest") == manifest)


def promoted(model: Mapping[str, Any], version: int) -> bool:
    """Whether the rollout of this version ended well: every wave passed its gate."""
    return bool((_status(model).get("lastGood") or {}).get("version") == version)


def stopped(model: Mapping[str, Any]) -> bool:
    """Whether any release failed its gates."""
    return bool(_status(model).get("quarantined"))


def quarantined(model: Mapping[str, Any], manifest: str) -> bool:
    """Whether this release failed and will not be tried again."""
    return any(entry["manifest"] == manifest for entry in _status(model).get("quarantined") or [])


def wait(
    plane: ControlPlane,
    what: str,
    reached: Callable[[Objects, Mapping[str, Any]], bool],
    say: Callable[[str], None],
    *,
    seconds: float,
    logs: Path,
) -> None:
    """Poll EdgeNodes and CompressedModel ({} before there is one), telling each change, until `reached(nodes, model)`.

    Raises:
        LocalPlatformError: not reached in time; names what the rollout says and where the logs are.
    """
    deadline = time.monotonic() + seconds
    told: dict[str, str] = {}
    while True:
        nodes, model = edge_nodes(plane), compressed_model(plane)
        lines = {name: _line(node) for name, node in sorted(nodes.items())}
        for name, line in {**lines, "rollout": standing(model)}.items():
            if told.get(name) != line:
                told[name] = line
                say(f"  {name}: {line}")
        if reached(nodes, model):
            return
        if time.monotonic() > deadline:
            files = ", ".join(str(log) for log in sorted(logs.rglob("*.log")))
            late = f"{what}: not there after {seconds:.0f} s"
            raise LocalPlatformError(f"{late}; {standing(model)}; the logs are {files}")
        time.sleep(POLL_SECONDS)


def standing(model: Mapping[str, Any]) -> str:
    """The rollout's Ready condition in one sentence."""
    conditions = _status(model).get("conditions") or []
    ready = next((entry for entry in conditions if entry["type"] == "Ready"), None)
    return f"{ready['reason']}: {ready['message']}" if ready else "the operator has not reported yet"


def _status(model: Mapping[str, Any]) -> Mapping[str, Any]:
    return model.get("status") or {}


def _line(node: Mapping[str, Any]) -> str:
    model = model_of(node)
    served = model.get("live") or {}
    version = f"version {served['version']}" if served.get("version") else ""
    words = (model.get("state", "nothing"), version, served.get("variant", ""), model.get("reason", ""))
    return " ".join(word for word in words if word)
