"""Source push: readings in the body of POST /v1/readings, as one JSON object or as NDJSON lines."""

import msgspec

from edgewright_agent.serving.live import Reading
from edgewright_agent.serving.window import is_reading


class BadReadings(ValueError):
    """Nothing was taken; the sentence names the first reading that is wrong."""


class _Reading(msgspec.Struct):
    t: float
    watts: float


class _Body(msgspec.Struct):
    readings: list[_Reading]


_json = msgspec.json.Decoder(_Body)
_lines = msgspec.json.Decoder(_Reading)


def parse(body: bytes, *, lines: bool, latest: float) -> list[Reading]:
    """All readings, or none; `latest` is the last Unix second that is believed.

    A time far ahead would empty the window and count years of gap.

    Raises:
        BadReadings: malformed JSON, a missing field or an implausible value.
    """
    try:
        raw = _lines.decode_lines(body) if lines else _json.decode(body).readings
    except msgspec.MsgspecError as error:
        raise BadReadings(f"The readings cannot be read: {error}.") from None
    for index, item in enumerate(raw):
        if not is_reading(item.t, item.watts) or item.t > latest:
            raise BadReadings(f"readings[{index}]: t must be Unix seconds, not in the future, and watts within ±1 MW.")
    return [Reading(int(item.t), item.watts) for item in raw]
