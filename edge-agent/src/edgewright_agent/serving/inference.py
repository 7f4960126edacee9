"""From the bytes of an infer request to the bytes of its answer: the one way behind every door.

The hot HTTP route, the plain HTTP route, the frame socket and gRPC differ in transport only.
"""

import logging
from dataclasses import dataclass
from typing import Final, NamedTuple

import orjson

from edgewright_agent.serving import protocol_v2
from edgewright_agent.serving.engine import Probabilities, Watts
from edgewright_agent.serving.one_by_one import OneByOne
from edgewright_agent.serving.slots import Loaded, NoFiniteAnswer, Slots

log = logging.getLogger(__name__)

BUSY: Final = "The node has more requests than it can answer; try again in a second."
FAILED: Final = "The engine failed on this request; the node's log has the reason."


@dataclass(frozen=True)
class Limits:
    """Bounds that keep one client from taking the node."""

    body_bytes: int = 1024 * 1024
    concurrency: int = 64
    """Requests in work at once, or answered in one turn of the event loop; more get 503."""
    body_seconds: float = 10.0
    """A request must have arrived whole after so long."""
    head_bytes: int = 32 * 1024
    headers: int = 100
    connections: int = 512
    idle_seconds: float = 75.0
    """A connection without a request is closed after so long."""
    write_seconds: float = 20.0
    """A client that reads none of its answers for so long is cut off."""
    turn_seconds: float = 0.030
    """Requests that are ready when one turn of the event loop has lasted so long get 503."""


class Answer(NamedTuple):
    """Status and body; `head_length` is that of the JSON before a binary tensor."""

    status: int
    body: bytes
    head_length: int | None = None


def refusal(status: int, sentence: str) -> Answer:
    """An answer that says what was wrong."""
    return Answer(status, orjson.dumps({"error": sentence}))


_SHED: Final = refusal(503, BUSY)


class Inference:
    """Reads requests, asks the slots, writes answers; never raises for what a request holds."""

    def __init__(self, slots: Slots, limits: Limits) -> None:
        self.slots, self.limits = slots, limits
        self.one_by_one = OneByOne()
        self.in_work = 0
        """Requests of the plain route that are being answered."""
        self.last: protocol_v2.InferRequest | None = None
        """What `at_once` has read, if it could."""

    def at_once(self, loaded: Loaded, body: bytes | bytearray, header_length: str | None) -> Answer | None:
        """The answer, or none where the request is too long to be answered in one go: then take `answer`."""
        self.last = None
        if protocol_v2.is_long_text(body, header_length):
            return None
        try:
            asked = protocol_v2.parse(body, header_length, loaded.model.window.seconds)
            if not self.slots.is_short(loaded, len(asked.watts)):
                return None
            self.last = asked
            answer = self.slots.infer_now(loaded, asked.watts)
        except (protocol_v2.BadRequest, NoFiniteAnswer) as error:
            return refusal(400, str(error))
        except Exception:
            return _failed(loaded)
        return Answer(200, *protocol_v2.encode(loaded.name, loaded.model, asked, answer))

    async def answer(self, loaded: Loaded, body: bytes | bytearray, header_length: str | None) -> Answer:
        """The answer to a request of any length; other requests get their turn in between."""
        try:
            if protocol_v2.is_long_text(body, header_length):
                async with self.one_by_one:
                    asked = protocol_v2.parse(body, header_length, loaded.model.window.seconds)
            else:
                asked = protocol_v2.parse(body, header_length, loaded.model.window.seconds)
            answer = await self.slots.infer(loaded, asked.watts)
        except (protocol_v2.BadRequest, NoFiniteAnswer) as error:
            return refusal(400, str(error))
        except Exception:
            return _failed(loaded)
        return Answer(200, *protocol_v2.encode(loaded.name, loaded.model, asked, answer))

    def in_process(self, name: str, watts: Watts) -> Probabilities:
        """For a program that holds the model itself: probabilities, [rows, classes], of [rows, 1, window seconds].

        Raises:
            KeyError: no model of this name is live.
            NoFiniteAnswer: an answer is NaN or infinite.
        """
        return self.slots.infer_now(self.slots.live[name], watts)

    def shed(self, loaded: Loaded) -> Answer:
        """The refusal of a request for which there is no time, counted."""
        loaded.tally.shed += 1
        return _SHED


def _failed(loaded: Loaded) -> Answer:
    log.exception("%s failed on a request", loaded.full_name)
    return refusal(500, FAILED)
