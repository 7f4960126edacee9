"""Walks one model through its life: does what the state asks for and says what came of it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from edgewright_agent import lifecycle, verify
from edgewright_agent.download import Gateway
from edgewright_agent.refusal import Delay, Refusal
from edgewright_agent.selftest_parent import Measured, self_test
from edgewright_agent.settings import AgentSettings
from edgewright_agent.state import Held, ModelRecord
from edgewright_agent.store import BlobError, Store
from edgewright_agent.supervisor import CommandRefused, Server
from edgewright_contract import names, release, trust
from edgewright_contract.bundle import Manifest
from edgewright_contract.conditions import Reason
from edgewright_contract.dsse import SignatureError
from edgewright_contract.edgenode import AssignedModel, Assignment, Benchmark, ModelState
from edgewright_contract.timestamps import rfc3339


@dataclass(frozen=True)
class Tools:
    """What a step works with."""

    settings: AgentSettings
    store: Store
    gateway: Gateway
    server: Server
    root: ec.EllipticCurvePublicKey
    node: verify.Node
    now: Callable[[], datetime]


async def step(
    record: ModelRecord, wish: AssignedModel, opened: trust.OpenedTrust, tools: Tools
) -> lifecycle.Event | None:
    """Do what the record's state asks for; the event that came of it, or none where nothing is to be done.

    Raises:
        ServerDown: the server died or hung meanwhile.
    """
    try:
        match record.state:
            case ModelState.PENDING if record.target is not None:
                candidate, _ = await fetch(record.target, wish.registered_model, opened, tools)
                return lifecycle.Fetched(candidate)
            case ModelState.FETCHED if record.candidate is not None:
                parsed = verified_from_disk(record.candidate, record.registered_model, opened, tools.store)
                now = int(tools.now().timestamp())
                verify.check_admission(parsed, wish, opened, tools.node, record.live, record.previous, now)
                return lifecycle.Verified()
            case ModelState.VERIFIED if record.candidate is not None:
                await measure(record.candidate, tools)
                return lifecycle.Tested()
            case ModelState.TESTED if record.candidate is not None:
                await tools.server.ask(load_command(record.name, record.candidate, tools.store), _patience(tools))
                return lifecycle.Shadowed()
            case ModelState.SHADOW if record.candidate is not None:
                await asyncio.sleep(tools.settings.shadow_seconds)
                await tools.server.ask(promote_command(record.name, record.candidate), _patience(tools))
                return lifecycle.Promoted(tools.settings.trial_seconds)
            case _:
                return None
    except Refusal as refusal:
        return lifecycle.Refused(refusal.reason, refusal.message)
    except CommandRefused as error:
        return lifecycle.Refused(Reason.INFERENCE_ERRORS, f"the server refused it: {error}"[:512])
    except Delay as delay:
        return lifecycle.Delayed(delay.reason, delay.message)


async def fetch(
    wish: Assignment, registered_model: str, opened: trust.OpenedTrust, tools: Tools
) -> tuple[Held, release.Release]:
    """Bring all files of a variant into the store, each bounded by what is signed already.

    Raises:
        Refusal, Delay: as the checks and the download say.
    """
    manifest_data = await _blob(wish.manifest, names.MAX_MANIFEST_BYTES, tools)
    manifest = verify.check_manifest(manifest_data, wish.manifest, opened, registered_model)
    release_digest = verify.file_digest(manifest, names.RELEASE_FILE)
    release_data = await _blob(release_digest, names.MAX_RELEASE_BYTES, tools)
    parsed = verify.check_release(release_data, manifest, registered_model, wish)
    held = verify.check_files(parsed, manifest, wish.variant)
    await _blob(held.golden, names.MAX_GOLDEN_BYTES, tools)
    await _blob(held.file, parsed.variant(wish.variant).bytes, tools)
    return held, parsed


def verified_from_disk(held: Held, registered_model: str, opened: trust.OpenedTrust, store: Store) -> release.Release:
    """Check signature and digest of everything again, on the bytes that lie on disk now.

    Raises:
        Refusal: any doubt.
    """
    wish = held.assignment
    try:
        manifest: Manifest = verify.check_manifest(
            store.read(wish.manifest, names.MAX_MANIFEST_BYTES), wish.manifest, opened, registered_model
        )
        parsed = verify.check_release(
            store.read(held.release, names.MAX_RELEASE_BYTES), manifest, registered_model, wish
        )
        if verify.check_files(parsed, manifest, wish.variant) != held:
            raise Refusal(Reason.NOT_A_RELEASE, "the state names other files than the release")
        verify.check_golden(store.read(held.golden, names.MAX_GOLDEN_BYTES), parsed)
        verify.check_model_file(store.read(held.file, names.MAX_MODEL_BYTES), parsed, wish.variant)
    except BlobError as error:
        raise Refusal(Reason.STORAGE_ERROR, str(error)) from None
    return parsed


async def measure(held: Held, tools: Tools) -> Measured:
    """Self-test of a held variant in a child process.

    Raises:
        Refusal: it failed or crashed.
    """
    store, settings = tools.store, tools.settings
    return await self_test(
        store.path(held.file),
        store.path(held.golden),
        store.path(held.release),
        held.assignment.variant,
        seconds=settings.self_test_seconds,
        address_bytes=settings.self_test_bytes,
    )


async def benchmarks(
    record: ModelRecord, wish: AssignedModel, opened: trust.OpenedTrust, tools: Tools
) -> list[Benchmark]:
    """Measurements of the variants that the operator asks for; those at hand are not repeated.

    Raises:
        Delay: the gateway cannot be reached.
    """
    if wish.benchmark is None or wish.live is None or wish.benchmark.manifest != wish.live.manifest:
        return record.benchmark
    runtime = _runtime_version()
    known = {entry.digest: entry for entry in record.benchmark if entry.runtime_version == runtime}
    found = []
    for variant in wish.benchmark.variants:
        try:
            target = wish.live.model_copy(update={"variant": variant})
            held, parsed = await fetch(target, wish.registered_model, opened, tools)
            if held.file not in known:
                verify.check_model_file(tools.store.read(held.file, names.MAX_MODEL_BYTES), parsed, variant)
                known[held.file] = _benchmark(held, await measure(held, tools), runtime, tools.now())
        except (Refusal, BlobError):
            continue  # not measured: the operator takes a variant without figures for unfit here
        found.append(known[held.file])
    return found


def load_command(model: str, held: Held, store: Store) -> dict[str, Any]:
    """The control command that makes the server load a variant beside what it serves."""
    wish = held.assignment
    return {
        "op": "load",
        "model": model,
        "manifest": wish.manifest,
        "version": wish.version,
        "variant": wish.variant,
        "path": str(store.path(held.file)),
        "digest": held.file,
        "release": str(store.path(held.release)),
        "slot": "shadow",
    }


def promote_command(model: str, held: Held) -> dict[str, Any]:
    """The control command that makes the server answer with what it loaded."""
    return {"op": "promote", "model": model, "manifest": held.assignment.manifest}


def open_stored_trust(digest: str, store: Store, root: ec.EllipticCurvePublicKey) -> trust.OpenedTrust:
    """The trust document that lies in the store.

    Raises:
        Refusal: TrustRefused or StorageError.
    """
    try:
        return trust.open_trust(store.read(digest, names.MAX_TRUST_BYTES), root)
    except BlobError as error:
        raise Refusal(Reason.STORAGE_ERROR, f"trust: {error}") from None
    except SignatureError as error:
        raise Refusal(Reason.TRUST_REFUSED, f"trust: {error}") from None


async def _blob(digest: str, limit: int, tools: Tools) -> bytes:
    await tools.gateway.fetch(tools.store, digest, limit)
    try:
        return tools.store.read(digest, limit)
    except BlobError as error:
        raise Delay(Reason.STORAGE_ERROR, str(error)) from None


def _patience(tools: Tools) -> float:
    return max(tools.settings.hang_seconds, tools.settings.self_test_seconds)


def _runtime_version() -> str:
    from importlib import metadata

    return metadata.version("onnxruntime")


def _benchmark(held: Held, measured: Measured, runtime: str, now: datetime) -> Benchmark:
    return Benchmark(
        digest=held.file,
        runtime_version=runtime,
        p50_microseconds=measured.p50_microseconds,
        p95_microseconds=measured.p95_microseconds,
        rss_bytes=measured.rss_bytes,
        at=rfc3339(now),
    )
