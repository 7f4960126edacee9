"""The same writes by a bare asyncio client: what the API server takes on this machine, whoever asks."""

import time

import msgspec
from rollout_fleet.agents import Live, acknowledged, spec_body
from rollout_fleet.site import EDGE_NODES, SLIM, VARIANT, Site, manifest, many


async def writes(site: Site, version: int) -> float:
    """Seconds for one spec write and one status write of each node, 16 at once, with nobody deciding or watching."""
    live = msgspec.convert({"version": version, "manifest": manifest(version), "variant": VARIANT}, Live)

    async def one(name: str) -> None:
        await site.call("PATCH", f"{EDGE_NODES}/{name}", spec_body(version), SLIM)
        before = {"version": version - 1, "manifest": manifest(version - 1), "variant": live.variant}
        await site.call("PATCH", f"{EDGE_NODES}/{name}/status", acknowledged(live, before), SLIM)

    began = time.monotonic()
    await many(site.nodes, one)
    return time.monotonic() - began
