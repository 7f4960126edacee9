"""The peer: the usual kopf operator with one handler for each EdgeNode, a timer that compares and patches.

Run as a process of its own with KUBECONFIG; the wish is read from the file in WISH.
"""

import json
import os
from pathlib import Path
from typing import Any

import kopf

WISH = Path(os.environ.get("WISH", ""))


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    """As fast as kopf goes: no events of its own, no peering."""
    settings.posting.enabled = False
    settings.peering.standalone = True


@kopf.timer("edgewright.dev", "v1alpha1", "edgenodes", interval=1.0, initial_delay=0.1)
def reconcile(spec: dict[str, Any], patch: kopf.Patch, **_: Any) -> None:
    """Wish and reality of one node."""
    wanted = json.loads(WISH.read_text())["models"]
    if json.loads(json.dumps(spec.get("models"), default=dict)) != wanted:
        patch.spec["models"] = wanted


if __name__ == "__main__":
    kopf.run(standalone=True, clusterwide=True)
