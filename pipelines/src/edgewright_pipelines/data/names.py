"""Beside traces.read: what a file's place and name say about appliance, plug and kind of recording; pure."""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath


class Subset(StrEnum):
    """How a day was recorded: the top folders of the data set."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    SYNTHETIC = "synthetic"


ENDINGS = (".csv.zst", ".csv")
SYNTHETIC_PLUG = "synthetic"

# Two spellings of one class occur in the data; the left one is found, the right one is meant.
_SPELLINGS = {
    "LaundryDrier": "LaundryDryer",
    "DVD_player": "DvdPlayer",
    "TV": "TV-LCD",
    "Projector": "VideoProjector",
}
# One plug, spelled in two ways within one class.
_PLUGS = {"senseo": "Senseo_Coffee"}
_DATE = re.compile(r"_?\d{4}\.\d{2}\.\d{2}")
_PREFIX = re.compile(r"^(?:device_|dev_|_)")
_HEX = re.compile(r"^[0-9A-Fa-f]{6}$")


class NameProblem(ValueError):
    """A file that stands in no known place; the text says where it should."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a file's place says. name: the path without its ending; device: `class/plug`."""

    name: str
    appliance: str
    device: str
    subset: Subset


def without_ending(name: str) -> str:
    """The name of a trace file without `.csv` or `.csv.zst`."""
    return next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), name)


def place_of(path: PurePosixPath) -> Place:
    """Read `<subset>/<Class>/<plug>_<yyyy.mm.dd>….csv[.zst]`, relative to the data folder. Raises NameProblem."""
    if len(path.parts) != 3 or path.parts[0] not in set(Subset):
        raise NameProblem(
            f"stands outside the layout {'|'.join(Subset)}/<Class>/<file>; move it there if it belongs to the data"
        )
    subset, spelled = Subset(path.parts[0]), path.parts[1]
    appliance = _SPELLINGS.get(spelled, spelled)
    plug = SYNTHETIC_PLUG if subset is Subset.SYNTHETIC else plug_of(without_ending(path.name))
    return Place(name=without_ending(str(path)), appliance=appliance, device=f"{appliance}/{plug}", subset=subset)


def plug_of(stem: str) -> str:
    """The meter plug in a file name: `dev_X_<date>`, `device_X_<date>` and `_X_<date>` are one plug X."""
    plug = _PREFIX.sub("", _DATE.split(stem, maxsplit=1)[0])
    return plug.upper() if _HEX.match(plug) else _PLUGS.get(plug, plug)
