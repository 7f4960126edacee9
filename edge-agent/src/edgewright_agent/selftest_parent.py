"""Starts the self-test child with a deadline and turns its end, whatever it is, into a result or a refusal."""

import asyncio
import contextlib
import json
import math
import os
from collections.abc import AsyncIterator

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from edgewright_agent import tied
from edgewright_agent.refusal import Refusal
from edgewright_agent.selftest import Job
from edgewright_agent.starting import server_environment
from edgewright_agent.state import Held
from edgewright_agent.store import BlobError, Store
from edgewright_contract import names, release, strictjson
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


class SelfTest:
    """Self-tests, one child for each. A child can be started ahead: to import the engine takes most of its time."""

    def __init__(self, *, seconds: float, address_bytes: int) -> None:
        self._seconds, self._address_bytes = seconds, address_bytes
        self._ahead: asyncio.subprocess.Process | None = None

    @contextlib.asynccontextmanager
    async def ahead(self) -> AsyncIterator[None]:
        """Have a child get ready meanwhile; one that nothing was given to is ended."""
        with contextlib.suppress(OSError):  # then the start is tried again, and told, when there is a job
            self._ahead = await self._start()
        try:
            yield
        finally:
            child, self._ahead = self._ahead, None
            if child is not None:
                await _end(child)

    async def __call__(self, job: Job) -> Measured:
        """Run the golden windows in a child process.

        Raises:
            Refusal: SelfTestFailed (wrong answers) or SelfTestCrashed (died, was killed, or took too long).
        """
        child, self._ahead = self._ahead, None
        if child is None or child.returncode is not None:  # it may have been killed while it waited
            child = await self._start()
        try:
            async with asyncio.timeout(self._seconds):
                output, errors = await child.communicate(json.dumps(job).encode())
        except TimeoutError:
            raise Refusal(Reason.SELF_TEST_CRASHED, f"no answer within {self._seconds:g} s") from None
        finally:
            await _end(child)
        if child.returncode != 0:
            last = errors.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no message"]
            raise Refusal(Reason.SELF_TEST_CRASHED, f"the self-test ended with {child.returncode}: {last[0]}")
        return _judged(output)

    async def _start(self) -> asyncio.subprocess.Process:
        limits = ["--address-bytes", str(self._address_bytes), "--seconds", str(math.ceil(self._seconds))]
        return await asyncio.create_subprocess_exec(
            *tied.command("edgewright_agent.selftest", *limits),
            env=server_environment(os.environ),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )


async def measured_in_child(held: Held, store: Store, self_test: SelfTest) -> Measured:
    """Self-test of a variant whose verified files lie in the store.

    Raises:
        Refusal: it failed or crashed, or the store lost what release.json says.
    """
    try:
        stated = release.parse(store.read(held.release, names.MAX_RELEASE_BYTES))
    except BlobError as error:
        raise Refusal(Reason.STORAGE_ERROR, str(error)) from None
    expected = stated.variant(held.assignment.variant).golden
    job = Job(
        model=str(store.path(held.file)),
        model_digest=held.file,
        golden=str(store.path(held.golden)),
        golden_digest=held.golden,
        answers=expected.answers,
        tolerance=expected.tolerance,
    )
    return await self_test(job)


async def _end(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.communicate()  # reads its pipes to the end, so that none stays open


def _judged(output: bytes) -> Measured:
    try:
        measured = Measured.model_validate(strictjson.loads(output, limit=_MAX_OUTPUT, what="self-test"))
    except (strictjson.StrictJsonError, ValidationError) as error:
        raise Refusal(Reason.SELF_TEST_CRASHED, f"the self-test answered nonsense: {error}") from None
    if not measured.ok:
        raise Refusal(Reason.SELF_TEST_FAILED, measured.message)
    return measured
