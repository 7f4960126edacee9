"""In idle time: measures the variants that the operator asks for, each in a one-shot child, and says when to wait."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from importlib import metadata
from typing import Final

from edgewright_agent import fetching, verify
from edgewright_agent.refusal import Delay, Refusal
from edgewright_agent.rollout import Tools
from edgewright_agent.selftest_parent import Measured
from edgewright_agent.state import Held, ModelRecord
from edgewright_agent.store import BlobError
from edgewright_contract import names, release, trust
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import AssignedModel, Benchmark
from edgewright_contract.timestamps import rfc3339

MAX_BUSY_SHARE: Final = 0.3
"""Beside a server that takes more of a core than this nothing is measured: its figures would be wrong, and felt."""
LOOK_SECONDS: Final = 1.0
LOOKS: Final = 20

Idle = Callable[[], Awaitable[bool]]


async def measured(
    record: ModelRecord, wish: AssignedModel, opened: trust.OpenedTrust, tools: Tools, idle: Idle
) -> list[Benchmark]:
    """Measurements of the variants asked for; those at hand for this runtime are not repeated.

    A variant that fails its checks or its self-test has none: the operator takes it for unfit on this class.

    Raises:
        Delay: the gateway cannot be reached, or the node is too busy to measure.
        OSError: the disk refuses.
    """
    if wish.benchmark is None:
        return record.benchmark
    runtime = metadata.version("onnxruntime")
    known = {entry.digest: entry for entry in record.benchmark if entry.runtime_version == runtime}
    found = []
    for variant in wish.benchmark.variants:
        try:
            asked = (wish.benchmark.manifest, variant, wish.registered_model)
            held, parsed = await fetching.candidate(*asked, opened, tools.gateway, tools.store)
            if held.file not in known:
                known[held.file] = await _one(held, parsed, runtime, tools, idle)
        except Refusal:
            continue
        found.append(known[held.file])
    return found


async def _one(held: Held, parsed: release.Release, runtime: str, tools: Tools, idle: Idle) -> Benchmark:
    await fetching.files(held, parsed, tools.gateway, tools.store)
    try:
        data = tools.store.read(held.file, names.MAX_MODEL_BYTES)
    except BlobError as error:
        raise Delay(Reason.STORAGE_ERROR, str(error)) from None
    verify.check_model_file(data, parsed, held.assignment.variant)
    for _ in range(LOOKS):
        if await idle():
            return _benchmark(held, await tools.self_test(held), runtime, tools.now())
    raise Delay(Reason.DOWNLOADING, "too busy to measure a variant; tried again later")


async def idle(cpu_seconds: Callable[[], float]) -> bool:
    """Whether the server leaves the machine alone; takes a second to look."""
    before = cpu_seconds()
    await asyncio.sleep(LOOK_SECONDS)
    return (cpu_seconds() - before) / LOOK_SECONDS <= MAX_BUSY_SHARE


def _benchmark(held: Held, measured: Measured, runtime: str, now: datetime) -> Benchmark:
    return Benchmark(
        digest=held.file,
        runtime_version=runtime,
        p50_microseconds=measured.p50_microseconds,
        p95_microseconds=measured.p95_microseconds,
        rss_bytes=measured.rss_bytes,
        at=rfc3339(now),
    )
