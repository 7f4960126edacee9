"""The agent's watch on the real API server: what changes after the first event arrives too, and at once."""

import asyncio
import random
import secrets
import ssl
import time

import httpx2

from edgewright_agent.kube import Kube
from edgewright_contract import names
from edgewright_local.control_plane import ControlPlane

SOON_SECONDS = 10.0  # far below the 75 s after which a silent watch is given up


async def test_every_change_arrives_soon(control_plane: ControlPlane, crds: list[str]) -> None:
    name = f"node-{secrets.token_hex(3)}"
    edge_node = {"apiVersion": names.API_VERSION, "kind": "EdgeNode", "metadata": {"name": name}, "spec": {}}
    control_plane.api.apply([edge_node])
    path = f"/apis/{names.API_VERSION}/{names.EDGE_NODES}/{name}"
    merge = {"Content-Type": "application/merge-patch+json"}
    trusted = ssl.create_default_context(cafile=str(control_plane.ca))
    problems: list[str] = []
    async with httpx2.AsyncClient(base_url=control_plane.url, verify=trusted, trust_env=False) as client:
        events = Kube(client, lambda: control_plane.token, name, rng=random.Random(1)).watch(problems.append)
        first = await asyncio.wait_for(anext(events), SOON_SECONDS)
        assert first.edge_node is not None
        for digit in "123":
            digest = "sha256:" + digit * 64
            patch = {"spec": {"trust": digest}}
            await asyncio.to_thread(control_plane.api.request, "PATCH", path, json=patch, headers=merge)
            started = time.monotonic()
            seen = await asyncio.wait_for(anext(events), SOON_SECONDS)
            assert seen.edge_node is not None
            assert seen.edge_node["spec"]["trust"] == digest, f"after {time.monotonic() - started:.1f} s"
        await events.aclose()
    assert problems == []
