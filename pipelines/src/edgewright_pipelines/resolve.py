"""Which release a person means: a folder, `name/version`, `name/alias` or `latest`; always gives a local folder."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgewright_contract import names, release
from edgewright_pipelines import release_folder, scoring, signing_keys

if TYPE_CHECKING:
    from mlflow import MlflowClient

WORKSPACE: Final = Path(".edgewright")
RELEASES: Final = "releases"
LATEST: Final = "latest"
_REFERENCE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)/([A-Za-z0-9][A-Za-z0-9._-]*)")


class ResolveError(ValueError):
    """There is no such release; the text says where it was looked for."""


def resolve_release(
    text: str, *, mlflow: str | None = None, keys: Path | None = None, workspace: Path = WORKSPACE
) -> Path:
    """The folder of a release.

    text: a folder, `name/version`, `name/alias`, `name/latest`, or `latest` (the newest of all). With `mlflow` (a URL)
    the registry decides, what it gives is verified by root.pub and trust.json of the folder `keys`, and kept below
    `workspace`; without it the newest folder there counts.

    Raises:
        ResolveError, RegistryError, FolderError, KeysError, ScoringError: each a ValueError with a sentence.
    """
    if (folder := Path(text)).is_dir():
        scoring.read_release(folder)
        return folder
    name, which = split(text)
    if mlflow is None:
        return _local(name, which, workspace)
    from edgewright_pipelines import registry

    return fetch(registry.connect(mlflow), name, which, keys, workspace)


def fetch(client: "MlflowClient", name: str | None, which: str, keys: Path | None, workspace: Path) -> Path:
    """A release from the registry, verified, as a folder below `workspace`; one with the same manifest is reused."""
    from edgewright_pipelines import registry

    if keys is None:
        raise signing_keys.KeysError(
            f"a release from MLflow is verified first: name the folder with root.pub and {names.TRUST_FILE} (--keys)"
        )
    opened = release_folder.opened_trust(signing_keys.load(keys))
    entry = registry.find(client, name, which)
    folder = workspace / RELEASES / entry.name / str(entry.version)
    if entry.manifest is not None and release_folder.manifest_digest(folder) == entry.manifest:
        release_folder.verified(release_folder.read(folder), opened)
        return folder
    stored, _ = registry.fetch(client, entry, opened)
    return release_folder.write(folder, stored)


def split(text: str) -> tuple[str | None, str]:
    """Name and version, alias or `latest`.

    Raises:
        ResolveError: it is neither of them.
    """
    if text == LATEST:
        return None, LATEST
    if match := _REFERENCE.fullmatch(text):
        return match[1], match[2]
    raise ResolveError(f"{text} is no folder; name one, or name/version, name/alias or {LATEST}")


def _local(name: str | None, which: str, workspace: Path) -> Path:
    top = workspace / RELEASES
    found: list[tuple[int, Path]] = []
    for file in top.glob(f"{name or '*'}/*/{names.RELEASE_FOLDER}/{names.RELEASE_FILE}"):
        try:
            parsed = release.parse(file.read_bytes())
        except release.NotARelease:
            continue
        if which in (LATEST, str(parsed.version)):
            found.append((parsed.sequence, file.parent.parent))
    if not found:
        wanted = which if name is None else f"{name}/{which}"
        raise ResolveError(f"no release {wanted} below {top}; name a folder, or the registry that has it (--mlflow)")
    return max(found)[1]
