"""Source push: readings in the body of POST /v1/readings, as one JSON object or as NDJSON lines."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from edgewright_agent.serving.live import Reading
from edgewright_agent.serving.window import is_reading

PIECE: Final = 4096
"""So many readings are looked at in one turn of the event loop, which takes a millisecond."""


class BadReadings(ValueError):
    """Nothing was taken; the sentence names the first reading that is wrong."""


class Pushed(msgspec.Struct, gc=False):
    """A reading as it came, not looked at yet."""

    t: float
    watts: float


class _Body(msgspec.Struct):
    readings: list[Pushed]


_json = msgspec.json.Decoder(_Body)
_lines = msgspec.json.Decoder(Pushed)


def parse(body: bytes, *, lines: bool) -> list[Pushed]:
    """What the body holds.

    Raises:
        BadReadings: malformed JSON, or a field is missing.
    """
    try:
        return _lines.decode_lines(body) if lines else _json.decode(body).readings
    except msgspec.MsgspecError as error:
        raise BadReadings(f"The readings cannot be read: {error}.") from None


def check(pushed: Sequence[Pushed], start: int, latest: float) -> None:
    """Look at those from `start` to `start + PIECE`; `latest` is the last Unix second that is believed.

    A time far ahead would empty the window and count years of gap.

    Raises:
        BadReadings: an implausible value.
    """
    for index, item in enumerate(pushed[start : start + PIECE], start):
        if not is_reading(item.t, item.watts) or item.t > latest:
            raise BadReadings(f"readings[{index}]: t must be Unix seconds, not in the future, and watts within ±1 MW.")


def readings(pushed: Iterable[Pushed]) -> Iterator[Reading]:
    """As the live window takes them, one after the other."""
    return (Reading(int(item.t), item.watts) for item in pushed)
