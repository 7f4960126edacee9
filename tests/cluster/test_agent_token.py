"""A node outside a pod renews its own two tokens on the real API server, under the shipped role and policy."""

from __future__ import annotations

import random
import secrets
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import yaml

from edgewright_agent.kube import Kube
from edgewright_agent.renewal import Renewal, claims
from edgewright_contract import names
from edgewright_local.control_plane import ControlPlane

_PROFILE = Path(__file__).parents[2] / "deploy" / "k8s" / "systemd" / "node.yaml"


async def test_both_tokens_are_renewed_and_the_new_ones_are_good(
    control_plane: ControlPlane, guarded: list[str], tmp_path: Path
) -> None:
    node = f"node-{secrets.token_hex(3)}"
    control_plane.create_node(node)
    control_plane.apply(list(yaml.safe_load_all(_PROFILE.read_text().replace("NODE", node))))
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": node}}
    control_plane.apply([lease], namespace=names.NAMESPACE)
    account = f"agent-{node}"
    files = {tmp_path / "api": None, tmp_path / "gateway": names.GATEWAY_AUDIENCE}
    for path, audience in files.items():
        path.write_text(control_plane.service_account_token(names.NAMESPACE, account, audience, node=node, seconds=600))
    before = {path: path.read_text() for path in files}
    later = lambda: datetime.now(UTC) + timedelta(seconds=400)  # noqa: E731
    trusted = ssl.create_default_context(cafile=str(control_plane.ca))
    async with httpx2.AsyncClient(base_url=control_plane.url, verify=trusted, trust_env=False) as client:
        kube = Kube(client, lambda: (tmp_path / "api").read_text(), node, rng=random.Random(1))
        renewal = Renewal(kube, account, files, later, random.Random(1), retry_seconds=1)
        pause = await renewal.once()
        assert pause > 3600, "half of what was given"
        for path in files:
            fresh = claims(path.read_text())
            assert path.read_text() != before[path]
            assert (fresh.node, fresh.node_uid) == (node, claims(before[path]).node_uid)
            assert fresh.expires - fresh.issued > 86_400
        await kube.renew_lease(datetime.now(UTC))  # with the new token, on the shipped role
