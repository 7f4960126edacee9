"""Releases, a gateway in memory, a server that only remembers, and a disk that fails or forgets: all in one process."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from onnx import TensorProto, helper, numpy_helper

from edgewright_agent import disk
from edgewright_agent.agent import Agent
from edgewright_agent.download import Gateway
from edgewright_agent.rollout import Tools
from edgewright_agent.selftest_parent import Measured
from edgewright_agent.settings import AgentSettings
from edgewright_agent.state import Held
from edgewright_agent.store import Store
from edgewright_agent.supervisor import CommandRefused, ServerDown
from edgewright_agent.verify import Node
from edgewright_contract import bundle, keys, names, permit, release, trust
from edgewright_contract.conditions import Reason
from edgewright_contract.digests import digest_of
from edgewright_contract.dsse import canonical
from edgewright_contract.edgenode import Assignment, EdgeNodeSpec, Hardware

WINDOW = 32
NAME = "default/nilm"
MODEL = "nilm-test"


def onnx_model(bias: float) -> bytes:
    weight = numpy_helper.from_array(np.zeros((WINDOW, 2), np.float32), "w")
    offset = numpy_helper.from_array(np.array([bias, 0], np.float32), "b")
    nodes = [
        helper.make_node("Flatten", ["watts"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    watts = helper.make_tensor_value_info("watts", TensorProto.FLOAT, ["batch", 1, WINDOW])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "g", [watts], [answer], [weight, offset])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


class Publisher:
    """Signs releases, trust documents and permits; every blob by its digest."""

    def __init__(self) -> None:
        self.root, self.key, self.permit_key = keys.generate(), keys.generate(), keys.generate()
        self.blobs: dict[str, bytes] = {}

    def add(self, data: bytes) -> str:
        digest = digest_of(data)
        self.blobs[digest.removeprefix("sha256:")] = data
        return digest

    def trust(self, sequence: int = 1, **changes: Any) -> str:
        pem = keys.public_pem(self.key.public_key()).decode()
        allowed = trust.ReleaseKey(public_key=pem, registered_models=["nilm-*"])
        permits = trust.PermitKey(public_key=keys.public_pem(self.permit_key.public_key()).decode())
        body = {"release_keys": [allowed], "permit_keys": [permits], **changes}
        return self.add(trust.sign(trust.Trust(sequence=sequence, **body), self.root))

    def permit(
        self, from_sequence: int, to: Assignment, node: str = "*", not_after: int = 2**40, model: str = MODEL
    ) -> str:
        stated = {"registered_model": model, "node": node, "from_sequence": from_sequence}
        allowed = permit.Permit(**stated, to_manifest=to.manifest, not_after=not_after)
        return permit.sign(allowed, self.permit_key)

    def release(
        self,
        version: int,
        sequence: int | None = None,
        *,
        model: bytes | None = None,
        answers: list[list[float]] | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
        **changes: Any,
    ) -> Assignment:
        data = model or onnx_model(version / 10)
        first = 1 / (1 + np.exp(-version / 10))
        golden = np.arange(2 * WINDOW, dtype="<u2").tobytes()
        body = {
            "registeredModel": MODEL,
            "version": version,
            "sequence": 100 * version if sequence is None else sequence,
            "labels": ["off", "kettle"],
            "window": {"seconds": WINDOW, "hopSeconds": WINDOW},
            "variants": [
                {
                    "name": "fp32",
                    "file": "variants/fp32.onnx",
                    "digest": digest_of(data),
                    "bytes": len(data),
                    "precision": "fp32",
                    "parameters": 1,
                    "macs": 1,
                    "accuracy": None,
                    "latency": {"p50Microseconds": 1, "p95Microseconds": 1, "machine": "test", "runtimeVersion": "1"},
                    "golden": {"answers": answers or [[first, 0.5]] * 2, "tolerance": 0.001},
                }
            ],
            "golden": {"digest": digest_of(golden), "count": 2},
            "provenance": {
                "recipeDigest": digest_of(b"r"),
                "dataDigest": digest_of(b"d"),
                "synthetic": True,
                "created": "2026-01-01T00:00:00Z",
            },
            **changes,
        }
        stated = canonical(release.Release.model_validate(body).model_dump(mode="json", by_alias=True))
        files = {names.RELEASE_FILE: stated, names.GOLDEN_FILE: golden, "variants/fp32.onnx": data}
        manifest = self.add(bundle.sign(MODEL, files, key or self.key))
        for content in files.values():
            self.add(content)
        return Assignment(version=version, sequence=body["sequence"], manifest=manifest, variant="fp32")

    def serve(self, request: httpx2.Request) -> httpx2.Response:
        data = self.blobs.get(request.url.path.removeprefix("/blobs/sha256/"))
        return httpx2.Response(404) if data is None else httpx2.Response(200, content=_streamed(data))


async def _streamed(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _digest_on_disk(path: str) -> str:
    return digest_of(Path(path).read_bytes())


@dataclass
class FakeServer:
    """Holds what it was told to hold, and reads the bytes as the real one does."""

    live: dict[str, str] = field(default_factory=dict)
    shadow: dict[str, str] = field(default_factory=dict)
    deadly: set[str] = field(default_factory=set)
    """Manifests under which it dies when they are loaded."""
    evidence: dict[str, Any] = field(default_factory=lambda: {"replayed": 3, "errors": 0, "agreement": 1.0})
    figures: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    generation: int = 0
    runs: bool = False

    async def start(self) -> None:
        self.live, self.shadow, self.generation, self.runs = {}, {}, self.generation + 1, True

    async def stop(self) -> None:
        self.live, self.shadow, self.runs = {}, {}, False

    async def hand_over(self, prepare: Callable[[], Awaitable[None]]) -> None:
        await self.start()
        await prepare()

    async def ask(self, command: dict[str, Any], seconds: float | None = None) -> dict[str, Any]:
        self.asked.append(command["op"])
        if not self.runs:
            raise self._down("it does not run")
        name, manifest = command.get("model", ""), command.get("manifest", "")
        match command["op"]:
            case "load":
                assert _digest_on_disk(command["path"]) == command["digest"]
                if manifest in self.deadly:
                    await self.stop()
                    raise self._down("it ended during load")
                self.shadow[name] = manifest
            case "promote":
                if self.shadow.get(name) == manifest:
                    self.live[name] = self.shadow.pop(name)
                elif self.live.get(name) != manifest:
                    raise CommandRefused("not loaded")
            case "rehearse":
                if self.shadow.get(name) != manifest:
                    raise CommandRefused("not loaded")
                return self.evidence
            case "figures":
                return {"ok": True, "models": self.figures}
            case "discard":
                self.shadow.pop(name, None)
            case "unload":
                self.live.pop(name, None)
        return {"ok": True}

    async def pulse(self, seconds: float) -> dict[str, Any]:
        if not self.runs:
            raise self._down("it does not run")
        return {"ok": True, "models": self.figures}

    async def ended(self) -> None:
        await asyncio.sleep(3600 if self.runs else 0)

    def cpu_seconds(self) -> float:
        return 0.0

    def _down(self, message: str) -> ServerDown:
        return ServerDown(Reason.CRASH_LOOP, message, self.generation)


class NoKube:
    """An API server that takes every status."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    async def patch_status(self, status: dict[str, Any]) -> None:
        self.told.append(status)


class World:
    """One node with its folder, and what it is offered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.published = Publisher()
        self.trust = self.published.trust()
        self.now = datetime(2026, 6, 1, tzinfo=UTC)
        self.node = Node("node-1", "amd64-test")
        self.kube = NoKube()
        self.self_test: Callable[[Held], Awaitable[Measured]] = _passes
        self.settings: dict[str, Any] = {}
        self.handler: Callable[[httpx2.Request], httpx2.Response] = self.published.serve

    def agent(self, folder: Path | None = None, ops: disk.FileOps | None = None) -> tuple[Agent, FakeServer]:
        """A new process on the same folder; nothing was started yet."""
        server = FakeServer()
        return self.wired(server, folder or self.folder, ops), server

    def wired(self, server: Any, folder: Path, ops: disk.FileOps | None = None) -> Agent:
        """The same with a server of choice."""
        fixed = {"node": "node-1", "state_dir": folder, "api_url": "http://x", "api_token_file": folder / "t"}
        more = {"gateway_url": "http://x", "gateway_token_file": folder / "t", "root_key_file": folder / "r"}
        settings = AgentSettings(**{**fixed, **more, "trial_seconds": 600, **self.settings})
        client = httpx2.AsyncClient(base_url="http://gateway", transport=httpx2.MockTransport(self._answer))
        gateway = Gateway(client, lambda: "token", deadline=30, min_free_bytes=0)
        unflushed = disk.FileOps(fsync=lambda descriptor: None)  # what flushes are for is FaultyDisk's to test
        store = Store(folder, ops or unflushed)
        root = self.published.root.public_key()
        wall = lambda: self.now  # noqa: E731
        tools = Tools(settings, store, gateway, server, root, self.node, wall, lambda held: self.self_test(held))
        hardware = Hardware(
            class_="amd64-test", arch="amd64", cpu="x", cores=1, memory_bytes=1, agent_version="1", runtime_version="1"
        )
        return Agent(tools, server, self.kube, hardware, random.Random(1))  # type: ignore[arg-type]

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        return self.handler(request)

    def spec(self, live: Assignment | None, **changes: Any) -> EdgeNodeSpec:
        """What the operator wrote."""
        body = {"name": NAME, "registered_model": MODEL, "live": live, **changes}
        return EdgeNodeSpec.model_validate({"trust": self.trust, "models": [body]})


async def _passes(held: Held) -> Measured:
    return Measured(ok=True, p50_microseconds=10, p95_microseconds=20, rss_bytes=1000)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "state")


@pytest.fixture(scope="session")
def environment_with() -> Callable[..., Path]:
    """`environment_with(folder, *packages)`: a fresh environment's Python. Needs nothing but a package index."""
    root = Path(__file__).parents[2]

    def make(folder: Path, *packages: str) -> Path:
        local, python = root / ".tools/uv/bin/uv", folder / "bin/python"  # where make puts uv
        uv = shutil.which("uv") or (str(local) if local.exists() else None)
        if uv is None:
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            install = [str(python), "-m", "pip", "install", "-q"]
        else:
            subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(folder)], check=True)
            install = [uv, "pip", "install", "-q", "--python", str(python)]
        subprocess.run([*install, *packages], check=True)
        return python

    return make


class PowerCut(BaseException):
    """The process is gone."""


class FaultyDisk:
    """FileOps that count their calls: one of them fails or never returns; what a power loss would leave is known.

    `site` is the function that flushes, `file` or `folder` whichever it flushes: `skip` leaves such flushes out.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[str] = []
        self.sites: set[tuple[str, str]] = set()
        self.skip: tuple[str, str] | None = None
        self.fault_at = 0
        self.fault: Callable[[], None] = _cut
        self._identity: dict[Path, int] = {}
        self._descriptors: dict[int, Path] = {}
        self._flushed: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int]] = {}
        self._next = 0
        for path in [folder, *(inner for inner in folder.rglob("*") if inner.is_dir())]:
            self._names[path] = {}
        for path in folder.rglob("*"):
            if path.is_file():
                self._flushed[self._new(path)] = path.read_bytes()
                self._names[path.parent][path.name] = self._identity[path]

    def ops(self) -> disk.FileOps:
        return disk.FileOps(self._open, self._write, self._truncate, self._fsync, self._replace, self._unlink)

    def _new(self, path: Path) -> int:
        self._next += 1
        self._identity[path] = self._next
        return self._next

    def _step(self, kind: str) -> None:
        self.calls.append(kind)
        if len(self.calls) == self.fault_at:
            self.fault()

    def _open(self, path: Path, flags: int) -> int:
        if flags & os.O_CREAT:
            self._step("create")
        descriptor = os.open(path, flags, 0o600)
        self._descriptors[descriptor] = path
        if path not in self._identity and not path.is_dir():
            self._flushed[self._new(path)] = b""
        return descriptor

    def _write(self, descriptor: int, data: bytes) -> int:
        half = len(data) // 2
        if len(self.calls) + 1 == self.fault_at and half:
            os.write(descriptor, data[:half])
        self._step("write")
        return os.write(descriptor, data)

    def _truncate(self, descriptor: int, size: int) -> None:
        self._step("truncate")
        os.ftruncate(descriptor, size)

    def _fsync(self, descriptor: int) -> None:
        path = self._descriptors[descriptor]
        kind = "folder" if path.is_dir() else "file"
        self._step("fsync " + kind)
        site = (_flusher(), kind)
        self.sites.add(site)
        if site == self.skip:
            return
        if path.is_dir():
            self._names[path] = self._present(path)
        else:
            self._flushed[self._identity[path]] = path.read_bytes()

    def _replace(self, source: Path, target: Path) -> None:
        self._step("rename")
        source.replace(target)
        self._identity[target] = self._identity.pop(source)

    def _unlink(self, path: Path) -> None:
        self._step("unlink")
        path.unlink()
        self._identity.pop(path, None)

    def _present(self, folder: Path) -> dict[str, int]:
        return {path.name: number for path, number in self._identity.items() if path.parent == folder}

    def after_power_loss(self, target: Path, early: set[Path]) -> None:
        """Write what the disk holds: flushed bytes only; flushed names, but all names of the folders in `early`."""
        for folder, kept in self._names.items():
            there = target / folder.relative_to(self.folder)
            there.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name, number in (self._present(folder) if folder in early else kept).items():
                (there / name).write_bytes(self._flushed.get(number, b""))


def _cut() -> None:
    raise PowerCut


def _flusher() -> str:
    frame = sys._getframe(2)
    while frame.f_code.co_name in ("sync_folder", "move") and frame.f_back:
        frame = frame.f_back
    return frame.f_code.co_name


@pytest.fixture
def faulty() -> type[FaultyDisk]:
    return FaultyDisk


@pytest.fixture
def power_cut() -> type[BaseException]:
    return PowerCut
