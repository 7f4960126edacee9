"""The same writes by a bare asyncio client: what the API server takes on this machine, whoever asks."""

import time

import msgspec
from rollout_fleet.agents import Live, acknowledged, spec_body
from rollout_fleet.site import EDGE_NODES, MERGE, VARIANT, Site, manifest, many

_APPLY = {"Content-Type": "application/apply-patch+yaml"}
_OWNER = "fieldManager=edgewright-operator&force=true"


async def writes(site: Site, version: int) -> float:
    """Seconds for one spec write and one status write of each node, 16 at once, with nobody deciding or watching."""
    live = msgspec.convert({"version": version, "manifest": manifest(version), "variant": VARIANT}, Live)

    async def one(name: str) -> None:
        url = f"{site.plane.url}{EDGE_NODES}/{name}?{_OWNER}"
        async with site.session.patch(url, data=spec_body(name, version), headers=_APPLY) as answer:
            answer.raise_for_status()
            await answer.read()
        before = {"version": version - 1, "manifest": manifest(version - 1), "variant": live.variant}
        await site.call("PATCH", f"{EDGE_NODES}/{name}/status", acknowledged(live, before), MERGE)

    began = time.monotonic()
    await many(site.nodes, one)
    return time.monotonic() - began
