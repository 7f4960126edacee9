"""Before traces.read: where the data is on this machine, if anywhere."""

from collections.abc import Mapping
from pathlib import Path

from edgewright_pipelines.data.names import Subset

VARIABLE = "TRACEBASE_DIR"
DEFAULT = Path("data") / "tracebase"
INCOMPLETE = ".incomplete"
"""File in a folder that `edgewright data fetch` has begun to fill and not finished."""


class LocationError(ValueError):
    """A folder was named and does not hold traces; the text says what to change."""


def locate(environ: Mapping[str, str], root: Path) -> Path | None:
    """The folder in TRACEBASE_DIR, else `data/tracebase` below `root` if it holds traces, else None.

    A folder that a fetch has not finished counts as none: figures of a part of the data would pass for those of all.

    Raises LocationError when TRACEBASE_DIR names a folder without traces: silently taking another would mislead.
    """
    if named := environ.get(VARIABLE, "").strip():
        folder = Path(named).expanduser()
        folder = folder if folder.is_absolute() else root / folder
        if not _holds_traces(folder):
            raise LocationError(
                f"{VARIABLE} names {folder}, which holds none of the folders {', '.join(Subset)};"
                f" correct it, or unset it to use {root / DEFAULT}."
            )
        if (folder / INCOMPLETE).exists():
            raise LocationError(f"{VARIABLE} names {folder}: `edgewright data fetch` did not finish it; run it again.")
        return folder
    default = root / DEFAULT
    return default if _holds_traces(default) and not (default / INCOMPLETE).exists() else None


def _holds_traces(folder: Path) -> bool:
    return any((folder / subset).is_dir() for subset in Subset)
