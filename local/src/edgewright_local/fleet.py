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


def edge_nodes(plane: ControlPlane) -> dict[str, dict[str, Any]]:
    """All EdgeNodes by name."""
    found = plane.api.request("GET", f"/apis/{names.API_VERSION}/{names.EDGE_NODES}")
    return {item["metadata"]["name"]: item for item in found["items"]}


def compressed_model(plane: ControlPlane) -> dict[str, Any]:
    """The demo's CompressedModel."""
    root = f"/apis/{names.API_VERSION}/namespaces/{NAMESPACE}"
    return plane.api.request("GET", f"{root}/{names.COMPRESSED_MODELS}/{MODEL}")


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


def wait(
    plane: ControlPlane,
    what: str,
    reached: Callable[[dict[str, dict[str, Any]]], bool],
    say: Callable[[str], None],
    *,
    seconds: float,
    logs: Path,
) -> None:
    """Poll the EdgeNodes, telling each change, until `reached`.

    Raises:
        LocalPlatformError: not reached in time; names what the rollout says and where the logs are.
    """
    deadline = time.monotonic() + seconds
    told: dict[str, str] = {}
    while True:
        nodes = edge_nodes(plane)
        for name, node in sorted(nodes.items()):
            if told.get(name) != (line := _line(node)):
                told[name] = line
                say(f"  {name}: {line}")
        if reached(nodes):
            return
        if time.monotonic() > deadline:
            files = ", ".join(str(log) for log in sorted(logs.rglob("*.log")))
            raise LocalPlatformError(
                f"{what}: not there after {seconds:.0f} s; {standing(plane)}; the logs are {files}"
            )
        time.sleep(POLL_SECONDS)


def standing(plane: ControlPlane) -> str:
    """The rollout's Ready condition in one sentence."""
    try:
        found = compressed_model(plane)
    except LocalPlatformError:
        return "there is no CompressedModel yet"
    conditions = (found.get("status") or {}).get("conditions") or []
    ready = next((entry for entry in conditions if entry["type"] == "Ready"), None)
    return f"{ready['reason']}: {ready['message']}" if ready else "the operator has not reported yet"


def _line(node: Mapping[str, Any]) -> str:
    model = model_of(node)
    served = model.get("live") or {}
    version = f"version {served['version']}" if served.get("version") else ""
    words = (model.get("state", "nothing"), version, served.get("variant", ""), model.get("reason", ""))
    return " ".join(word for word in words if word)
