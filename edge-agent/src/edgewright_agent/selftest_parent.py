"""Starts the self-test child with a deadline and turns its end, whatever it is, into a result or a refusal."""

import asyncio
import contextlib
import math
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from edgewright_agent import tied
from edgewright_agent.refusal import Refusal
from edgewright_agent.state import Held
from edgewright_agent.store import Store
from edgewright_contract import strictjson
from edgewright_contract.conditions import Reason

_MAX_OUTPUT = 64 * 1024


class Measured(BaseModel):
    """What the child measured of one variant on this node."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True, extra="ignore")

    ok: bool
    message: str = ""
    p50_microseconds: int = Field(default=0, ge=0)
    p95_microseconds: int = Field(default=0, ge=0)
    rss_bytes: int = Field(default=0, ge=0)


async def self_test(
    model: Path, golden: Path, release: Path, variant: str, *, seconds: float, address_bytes: int
) -> Measured:
    """Run the golden windows in a child process.

    Raises:
        Refusal: SelfTestFailed (wrong answers) or SelfTestCrashed (died, was killed, or took too long).
    """
    arguments = ["--model", str(model), "--golden", str(golden), "--release", str(release), "--variant", variant]
    limits = ["--address-bytes", str(address_bytes), "--seconds", str(math.ceil(seconds))]
    child = await asyncio.create_subprocess_exec(
        *tied.command("edgewright_agent.selftest", *arguments, *limits),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            output, errors = await child.communicate()
    except TimeoutError:
        raise Refusal(Reason.SELF_TEST_CRASHED, f"no answer within {seconds:g} s") from None
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    if child.returncode != 0:
        last = errors.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no message"]
        raise Refusal(Reason.SELF_TEST_CRASHED, f"the self-test ended with {child.returncode}: {last[0]}")
    return _judged(output)


async def measured_in_child(held: Held, store: Store, *, seconds: float, address_bytes: int) -> Measured:
    """Self-test of a variant whose verified files lie in the store.

    Raises:
        Refusal: it failed or crashed.
    """
    files = (store.path(held.file), store.path(held.golden), store.path(held.release))
    return await self_test(*files, held.assignment.variant, seconds=seconds, address_bytes=address_bytes)


def _judged(output: bytes) -> Measured:
    try:
        measured = Measured.model_validate(strictjson.loads(output, limit=_MAX_OUTPUT, what="self-test"))
    except (strictjson.StrictJsonError, ValidationError) as error:
        raise Refusal(Reason.SELF_TEST_CRASHED, f"the self-test answered nonsense: {error}") from None
    if not measured.ok:
        raise Refusal(Reason.SELF_TEST_FAILED, measured.message)
    return measured
