"""Walks one model through its life: does what the state asks for and says what came of it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from edgewright_agent import events, fetching, verify
from edgewright_agent.download import Gateway
from edgewright_agent.ledger import Ledger
from edgewright_agent.refusal import Delay, Refusal, of_disk
from edgewright_agent.selftest_parent import Measured
from edgewright_agent.settings import AgentSettings
from edgewright_agent.state import Held, ModelRecord
from edgewright_agent.store import Store
from edgewright_agent.supervisor import CommandRefused
from edgewright_contract import trust
from edgewright_contract.conditions import Reason
from edgewright_contract.edgenode import AssignedModel, ModelState

REPLAY_SECONDS: Final = 30.0
"""The server spends at most about so long on the node's own readings before a model goes live."""


class Serving(Protocol):
    """The server process, as far as a step needs it."""

    async def ask(self, command: dict[str, Any], seconds: float | None = None) -> dict[str, Any]:
        """One command, one answer."""
        ...


@dataclass(frozen=True)
class Tools:
    """What a step works with."""

    settings: AgentSettings
    store: Store
    gateway: Gateway
    server: Serving
    root: ec.EllipticCurvePublicKey
    node: verify.Node
    now: Callable[[], datetime]
    self_test: Callable[[Held], Awaitable[Measured]]
    self_test_ahead: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    """A self-test process gets ready while in here, so that `self_test` need not wait for its start."""


async def step(
    record: ModelRecord, wish: AssignedModel, opened: trust.OpenedTrust, ledger: Ledger, tools: Tools
) -> events.Event | None:
    """Do what the record's state asks for; the event that came of it, or none where nothing is to be done.

    Raises:
        ServerDown: the server died or hung meanwhile.
    """
    try:
        if record.state is ModelState.PENDING and record.target is not None:
            wanted = (record.target, wish.registered_model)
            return events.Fetched(await fetching.release(*wanted, opened, tools.gateway, tools.store))
        if record.candidate is None:
            return None
        return await _with_candidate(record.state, record, record.candidate, wish, opened, ledger, tools)
    except Refusal as refusal:
        if refusal.reason is Reason.STORAGE_ERROR:
            return events.Gone(refusal.reason, refusal.message)
        return events.Refused(refusal.reason, refusal.message)
    except CommandRefused as error:
        return events.Refused(Reason.INFERENCE_ERRORS, f"the server refused it: {error}"[:512])
    except Delay as delay:
        return events.Delayed(delay.reason, delay.message)
    except OSError as error:
        refused = of_disk(error)
        return events.Delayed(refused.reason, refused.message)


async def _with_candidate(
    state: ModelState,
    record: ModelRecord,
    candidate: Held,
    wish: AssignedModel,
    opened: trust.OpenedTrust,
    ledger: Ledger,
    tools: Tools,
) -> events.Event | None:
    match state:
        case ModelState.FETCHED:
            if candidate.trust != opened.digest:  # trust was renewed since: what counts is what is believed now
                candidate = candidate.model_copy(update={"trust": opened.digest})
            parsed = fetching.verified(candidate, record.registered_model, opened, tools.store)
            sequence = ledger.state.floors.models.get(record.registered_model, 0)
            standing = verify.Standing(sequence, record.previous)
            verify.check_admission(parsed, wish, opened, tools.node, standing, ledger.signed_now())
            return events.Verified(candidate)
        case ModelState.VERIFIED:
            await tools.self_test(candidate)
            return events.Tested()
        case ModelState.TESTED:
            await tools.server.ask(load_command(record.name, candidate, tools.store), _patience(tools))
            return events.Shadowed()
        case ModelState.SHADOW:
            return await _out_of_shadow(record, candidate, tools)
        case _:
            return None


async def _out_of_shadow(record: ModelRecord, candidate: Held, tools: Tools) -> events.Event:
    """The node's own readings through old and new model, then live windows, then live."""
    settings = tools.settings
    command = {"op": "rehearse", **_named(record.name, candidate), "seconds": REPLAY_SECONDS}
    evidence = await tools.server.ask(command, REPLAY_SECONDS + _patience(tools))
    replayed = int(evidence.get("replayed", 0))
    _check_own(int(evidence.get("errors", 0)), replayed, evidence.get("agreement"), settings)
    if settings.shadow_seconds:
        await asyncio.sleep(settings.shadow_seconds)
        figures = await tools.server.ask({"op": "figures"}, _patience(tools))
        seen = figures["models"].get(record.name, {})  # replayed and live windows together
        _check_own(int(seen.get("errors", 0)), int(seen.get("compared", 0)), seen.get("agreement"), settings)
    await tools.server.ask(promote_command(record.name, candidate), _patience(tools))
    former = [int(evidence.get(key, 0)) for key in ("previousP95Microseconds", "previousRssBytes")]
    return events.Promoted(settings.trial_seconds, events.Evidence(replayed, *former))


def _check_own(errors: int, windows: int, agreement: float | None, settings: AgentSettings) -> None:
    """Own readings speak against the new model where it fails on one of them or disagrees with the former too often.

    Raises:
        Refusal: they do.
    """
    if errors:
        raise Refusal(Reason.INFERENCE_ERRORS, f"{errors} of {windows + errors} windows of own readings failed")
    if agreement is not None and windows >= settings.min_replayed and agreement < settings.min_agreement:
        stated = f"agrees with the former on {agreement:.2f} of {windows} windows of own readings"
        raise Refusal(Reason.DISAGREEMENT, f"{stated}, {settings.min_agreement:g} is asked for")


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
    return {"op": "promote", **_named(model, held)}


def _named(model: str, held: Held) -> dict[str, Any]:
    return {"model": model, "manifest": held.assignment.manifest}


def _patience(tools: Tools) -> float:
    return max(tools.settings.hang_seconds, tools.settings.self_test_seconds)
