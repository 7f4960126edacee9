"""The stage of the scale bench: a real API server, Node objects without kubelets, a wish, MLflow and gateway played."""

import asyncio
import contextlib
import json
import os
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from edgewright_contract import names
from edgewright_local.cluster_api import read_manifests
from edgewright_local.control_plane import ControlPlane

ROOT: Final = Path(__file__).resolve().parents[2]
GROUP: Final = f"/apis/{names.API_VERSION}"
EDGE_NODES: Final = f"{GROUP}/{names.EDGE_NODES}"
LEASES: Final = f"/apis/coordination.k8s.io/v1/namespaces/{names.NAMESPACE}/leases"
MODEL: Final = f"{GROUP}/namespaces/bench/{names.COMPRESSED_MODELS}/nilm"
KEY: Final = "bench/nilm"
MERGE: Final = {"Content-Type": "application/merge-patch+json"}
SLIM: Final = {**MERGE, "Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}
"""As operator and agent ask: an answer without what they just wrote."""
SHARD: Final = "bench.edgewright.dev/shard"
VARIANT: Final = "taylor-global-50-int8"
PER_WATCH: Final = 1000
"""Nodes that one shared watch of the played agents covers."""


def manifest(version: int) -> str:
    """The identity of a played release."""
    return f"sha256:{version:064x}"


def release(version: int) -> dict[str, Any]:
    """What the gateway would answer about it."""
    variant = {
        "name": VARIANT, "file": f"variants/{VARIANT}.onnx", "digest": "sha256:" + "1" * 64,
        "bytes": 400_000, "precision": "fp32", "parent": None, "parameters": 1, "macs": 1, "accuracy": None,
        "latency": {"p50Microseconds": 100, "p95Microseconds": 100, "machine": "bench", "runtimeVersion": "1"},
        "golden": {"answers": [[0.5, 0.5]], "tolerance": 0.001},
    }  # fmt: skip
    return {
        "registeredModel": "nilm-bench", "version": version, "sequence": 1_700_000_000 + version,
        "labels": ["kettle", "fridge"], "window": {"seconds": 64, "hopSeconds": 16}, "variants": [variant],
        "golden": {"digest": "sha256:" + "2" * 64, "count": 1},
        "provenance": {
            "recipeDigest": "sha256:" + "3" * 64, "dataDigest": "sha256:" + "4" * 64, "synthetic": True,
            "created": "2026-01-01T00:00:00Z",
        },
    }  # fmt: skip


def hardware() -> dict[str, Any]:
    """As a real agent reports it, so that the stored object has its real size."""
    return {
        "class": "arm64-a72", "arch": "arm64", "cpu": "ARM Cortex-A72 r0p3", "flags": ["asimd", "crc32", "fp", "aes"],
        "cores": 4, "memoryBytes": 4_000_000_000, "agentVersion": "0.1.0", "runtimeVersion": "1.32.0",
    }  # fmt: skip


@dataclass(slots=True)
class Site:
    """Everything that the runs share; `version` is what the alias names."""

    plane: ControlPlane
    session: aiohttp.ClientSession
    nodes: list[str] = field(default_factory=list)
    version: int = 1
    source_url: str = ""

    async def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """One request with the administrator's rights.

        Raises:
            RuntimeError: it was refused.
        """
        async with self.session.request(method, self.plane.url + path, json=body, headers=headers) as answer:
            data = await answer.read()
            if answer.status >= 400:
                raise RuntimeError(f"{method} {path}: {answer.status} {data[:300].decode()}")
            return data

    async def requests(self) -> Counter[tuple[str, str, str]]:
        """The API server's own count of requests by (verb, resource, subresource)."""
        text = (await self.call("GET", "/metrics")).decode()
        counts: Counter[tuple[str, str, str]] = Counter()
        for labels, value in re.findall(r"^apiserver_request_total\{([^}]*)\} (\S+)$", text, re.M):
            found = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            if found["code"].startswith("2"):
                counts[found["verb"], found["resource"], found["subresource"]] += int(float(value))
        return counts

    async def status_bytes(self) -> int:
        """Length of the CompressedModel's status as JSON."""
        status = json.loads(await self.call("GET", MODEL)).get("status") or {}
        return len(json.dumps(status, separators=(",", ":")))

    def memory(self, name: str) -> float:
        """Resident megabytes of a process of the control plane."""
        process = next(each for each in self.plane.processes if each.spec.name == name)
        return resident(process.pid)

    def used(self) -> float:
        """Processor seconds that the control plane has used so far, API server and etcd together."""
        return sum(processor_seconds(each.pid) for each in self.plane.processes)


def processor_seconds(pid: int) -> float:
    """What a process has used so far, its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int, peak: bool = False) -> float:
    """Megabytes (10⁶ bytes) that a process holds, or held at most."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", text)
    return int(found.group(1)) * 1024 / 1e6 if found else float("nan")


@contextlib.asynccontextmanager
async def opened(plane: ControlPlane, count: int) -> AsyncIterator[Site]:
    """CRDs, namespaces, `count` Nodes and the played sources."""
    documents = read_manifests(ROOT / "deploy/k8s/crd")
    plane.apply([document for document in documents if document["kind"] == "CustomResourceDefinition"])
    for name in (names.NAMESPACE, "bench"):
        plane.api.create_namespace(name)
    trusted = ssl.create_default_context(cafile=str(plane.ca))
    headers = {"Authorization": f"Bearer {plane.token}"}
    connector = aiohttp.TCPConnector(ssl=trusted, limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers, read_bufsize=2**21) as session:
        site = Site(plane, session, [f"node-{index:06}" for index in range(count)])
        runner = await _sources(site)
        try:
            await many(site.nodes, lambda name: _node(site, name))
            yield site
        finally:
            await runner.cleanup()


async def many(nodes: list[str], work: Any, at_once: int = 16) -> None:
    """`work(node)` for all, so many at once."""
    queue = iter(nodes)

    async def worker() -> None:
        for name in queue:
            await work(name)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())


async def _node(site: Site, name: str) -> None:
    labels = {names.LABEL_AGENT: "true", SHARD: str(int(name[5:]) // PER_WATCH), "site": "plant-a"}
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
    await site.call("POST", "/api/v1/nodes", body)


async def _sources(site: Site) -> web.AppRunner:
    async def alias(_: web.Request) -> web.Response:
        tags = [{"key": names.TAG_MANIFEST, "value": manifest(site.version)}]
        return web.json_response({"model_version": {"version": str(site.version), "tags": tags}})

    async def take(request: web.Request) -> web.Response:
        asked = await request.json()
        trust = "sha256:" + "7" * 64
        found = {"manifest": asked["manifest"], "release": release(asked["version"]), "trust": trust}
        return web.json_response(found)

    application = web.Application()
    application.router.add_get("/api/2.0/mlflow/registered-models/alias", alias)
    application.router.add_post("/releases", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.source_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    return runner
