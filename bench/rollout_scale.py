"""One release to every node of a fleet, on a real API server, beside what a bare client needs for the same writes.

Agents are played by this process: one shared watch for each thousand nodes, one status write for each move. Gates ask
for what the played figures show; no soak. Beside it: one kopf handler for each object, 1,000 real watches, the planner.

Examples:
  python bench/rollout_scale.py --nodes 10000           the whole comparison
  python bench/rollout_scale.py --nodes 1000 --json     the same for fewer nodes; the last line is one JSON object
  python bench/rollout_scale.py --quick                 200 nodes, without the kopf peer and the real watches
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent))

from rollout_fleet import bare, planner
from rollout_fleet.agents import Agents, real_watches, spec_body
from rollout_fleet.site import MODEL, VARIANT, Site, opened, processor_seconds, resident

from edgewright_contract import names
from edgewright_local.binaries import Binary, ensure
from edgewright_local.control_plane import ControlPlane
from edgewright_local.ports import free_ports
from edgewright_local.processes import ManagedProcess, ProcessSpec

QUICK_NODES: Final = 200
STEADY_SECONDS: Final = 10.0
PLANNED: Final = 100_000
LIMIT: Final = 900.0


def main() -> None:
    """Entry point; exit code 1 when a target of the project is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000, help="EdgeNodes (default 1000)")
    parser.add_argument("--no-peer", action="store_true", help="leave the kopf peer out")
    parser.add_argument("--watches", type=int, default=1000, help="real watches to measure (default 1000, 0: none)")
    parser.add_argument("--quick", action="store_true", help=f"at most a minute: {QUICK_NODES} nodes, no peer")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    asked = parser.parse_args()
    if asked.nodes < 1:
        parser.error("--nodes: at least 1")
    if asked.quick:
        asked.nodes, asked.watches, asked.no_peer = QUICK_NODES, 0, True
        say(f"quick: {QUICK_NODES} nodes; left out: the kopf peer, real watches, a planner of {PLANNED:,} nodes")
    with tempfile.TemporaryDirectory(prefix="edgewright-scale-") as folder, control_plane(Path(folder)) as plane:
        found = asyncio.run(measured(plane, Path(folder), asked))
    for key, value in found.items():
        say(f"{key:32} {value}")
    if asked.json:
        print(json.dumps(found))


def say(text: str) -> None:
    """Progress for people."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def control_plane(folder: Path) -> Iterator[ControlPlane]:
    """etcd and kube-apiserver, ended afterwards."""
    binaries = ensure((Binary.KUBE_APISERVER, Binary.ETCD), lambda progress: say(str(progress)))
    plane = ControlPlane.start(folder / "plane", binaries, report=say)
    try:
        yield plane
    finally:
        plane.stop()


async def measured(plane: ControlPlane, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run."""
    async with opened(plane, asked.nodes) as site:
        say(f"{asked.nodes} Nodes are there")
        found = await rolled_out(site, folder, asked.watches)
        site.version += 1
        say("the same writes by a bare client")
        used = site.used()
        found["bareSeconds"] = round(await bare.writes(site, site.version), 2)
        found["bareControlPlaneProcessorSeconds"] = round(site.used() - used, 1)
        found["ratioToBareWrites"] = round(found["seconds"] / found["bareSeconds"], 3)
        say(json.dumps(found))
        if not asked.no_peer:
            found |= await one_handler_each(site, folder)
    planned = PLANNED if not asked.quick else asked.nodes
    say(f"the planner alone, {planned:,} nodes")
    times = planner.seconds(planned)
    return found | {"plannerNodes": planned, "plannerSeconds": round(max(times.values()), 3)}


async def rolled_out(site: Site, folder: Path, watches: int) -> dict[str, Any]:
    """Version 1 to get going, then version 2 by the clock, then a steady while."""
    count = len(site.nodes)
    operator = started(site, folder)
    try:
        began = time.monotonic()
        await until(lambda: registered(site), LIMIT)
        registration = time.monotonic() - began
        say(f"all have an EdgeNode and a Lease after {registration:.1f} s")
        agents = Agents(site)
        await agents.wake()
        async with asyncio.TaskGroup() as group:
            playing = group.create_task(agents.run())
            await wish(site)
            await agents.all_live(1, LIMIT)
            await until(lambda: settled(site, 1), LIMIT)
            say("version 1 is live everywhere; now version 2 by the clock")
            before, shared = await site.requests(), site.memory("kube-apiserver")
            used, mine = site.used(), processor_seconds(operator.pid)
            began, site.version = time.monotonic(), 2
            seconds = await agents.all_live(2, LIMIT) - began
            used, mine = site.used() - used, processor_seconds(operator.pid) - mine
            await until(lambda: settled(site, 2), LIMIT)
            done = await site.requests()
            say(f"acknowledged by all after {seconds:.1f} s")
            await asyncio.sleep(STEADY_SECONDS)
            steady = await site.requests() - done
            memory = resident(operator.pid, peak=True)
            found = {
                "nodes": count,
                "seconds": round(seconds, 2),
                "controlPlaneProcessorSeconds": round(used, 1),
                "operatorProcessorSeconds": round(mine, 1),
                "registrationSeconds": round(registration, 2),
                "operatorWritesPerNode": round(operator_writes(done - before) / count, 4),
                "agentWritesPerNode": round(agent_writes(done - before) / count, 4),
                "steadyWrites": operator_writes(steady) + agent_writes(steady),
                "operatorRssMegabytes": round(memory, 1),
                "statusBytes": await site.status_bytes(),
                "apiServerRssMegabytes": round(max(shared, site.memory("kube-apiserver")), 1),
            }
            if watches:
                number = min(watches, count)
                say(f"{number} real watches")
                found |= {
                    "realWatches": number,
                    "apiServerRssMegabytesWithRealWatches": round(await real_watches(site, number), 1),
                }
            playing.cancel()
        return found
    finally:
        operator.stop()


def started(site: Site, folder: Path) -> ManagedProcess:
    """The operator as a process of its own."""
    (folder / "token").write_text("bench\n")
    settings = {
        "KUBECONFIG": str(site.plane.kubeconfig),
        "MLFLOW_URL": site.source_url,
        "GATEWAY_URL": site.source_url,
        "GATEWAY_TOKEN_FILE": str(folder / "token"),
        "SINGLE_TENANT": "true",
        "POLL_SECONDS": "0.5",
        "METRICS_PORT": str(free_ports(1)[0]),
    }
    environment = {**os.environ, **{f"EDGEWRIGHT_OPERATOR_{key}": value for key, value in settings.items()}}
    command = (sys.executable, "-m", "edgewright_operator.main")
    return ManagedProcess.start(ProcessSpec("operator", command, folder, environment=environment))


async def wish(site: Site) -> None:
    """One wave, no soak; the variant is pinned, so that nothing is measured first."""
    rollout = {"waves": [{"percent": 100}], "soak": "0s", "maxUnavailable": "100%", "gates": {"minSamples": 1}}
    spec = {
        "source": {"registeredModel": "nilm-bench", "alias": "production"},
        "selection": {"variant": VARIANT},
        "rollout": rollout,
    }
    body = {"apiVersion": names.API_VERSION, "kind": "CompressedModel", "metadata": {"name": "nilm"}, "spec": spec}
    await site.call("POST", MODEL.rsplit("/", 1)[0], body)


async def registered(site: Site) -> bool:
    """Whether the operator has made what it makes for each Node."""
    counts = await site.requests()
    made = counts["POST", "edgenodes", ""], counts["POST", "leases", ""]
    return min(made) >= len(site.nodes)


async def settled(site: Site, version: int) -> bool:
    """Whether the status says that the version is good."""
    status = json.loads(await site.call("GET", MODEL)).get("status") or {}
    return bool((status.get("lastGood") or {}).get("version") == version)


async def until(probe: Any, limit: float) -> None:
    """Asks four times a second.

    Raises:
        TimeoutError: not within `limit` seconds.
    """
    async with asyncio.timeout(limit):
        while not await probe():  # noqa: ASYNC110 - the answer comes from a server
            await asyncio.sleep(0.25)


def operator_writes(counts: Counter[tuple[str, str, str]]) -> int:
    """All writes but Leases and what agents write."""
    verbs = ("APPLY", "PATCH", "PUT", "POST", "DELETE")
    return sum(
        count
        for (verb, resource, subresource), count in counts.items()
        if verb in verbs
        and resource in ("edgenodes", "compressedmodels", "events")
        and not _by_agent(resource, subresource)
    )


def agent_writes(counts: Counter[tuple[str, str, str]]) -> int:
    """Status writes of EdgeNodes."""
    return sum(
        count
        for (verb, resource, subresource), count in counts.items()
        if verb in ("APPLY", "PATCH", "PUT") and _by_agent(resource, subresource)
    )


def _by_agent(resource: str, subresource: str) -> bool:
    return resource == "edgenodes" and subresource == "status"


async def one_handler_each(site: Site, folder: Path) -> dict[str, Any]:
    """The same release by kopf's usual way, from a running operator to all acknowledged."""
    count, file = len(site.nodes), folder / "wish.json"
    file.write_text(json.dumps(spec_body(site.version)["spec"]))
    environment = {**os.environ, "KUBECONFIG": str(site.plane.kubeconfig), "WISH": str(file)}
    command = (sys.executable, str(Path(__file__).parent / "rollout_fleet/one_handler_each.py"))
    peer = ManagedProcess.start(ProcessSpec("one-handler-each", command, folder, environment=environment))
    say("one kopf handler for each object: until every object has its timer")
    agents = Agents(site)
    try:
        async with asyncio.TaskGroup() as group:
            playing = group.create_task(agents.run())
            start = await site.requests()
            await until(lambda: _touched(site, start, count), LIMIT)  # each got its finalizer
            before, began = await site.requests(), time.monotonic()
            site.version += 1
            file.write_text(json.dumps(spec_body(site.version)["spec"]))
            seconds = await agents.all_live(site.version, LIMIT) - began
            writes = operator_writes(await site.requests() - before)
            playing.cancel()
        return {
            "oneHandlerEachSeconds": round(seconds, 2),
            "oneHandlerEachWritesPerNode": round(writes / count, 4),
            "oneHandlerEachRssMegabytes": round(resident(peer.pid, peak=True), 1),
        }
    except TimeoutError:
        return {"oneHandlerEachSeconds": None, "oneHandlerEachNote": f"not within {LIMIT:.0f} s"}
    finally:
        peer.stop()


async def _touched(site: Site, start: Counter[tuple[str, str, str]], count: int) -> bool:
    return operator_writes(await site.requests() - start) >= count


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
