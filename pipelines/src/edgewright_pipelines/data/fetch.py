"""Before traces.read: brings the public data set to this machine and keeps only files with the pinned content."""

import hashlib
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import httpx2
from backports import zstd

from edgewright_pipelines.data.download import FetchError, Partial, download
from edgewright_pipelines.data.location import INCOMPLETE
from edgewright_pipelines.data.manifest import Manifest
from edgewright_pipelines.data.parse import MAX_BYTES as MAX_FILE_BYTES
from edgewright_pipelines.data.parse import FileProblem, decompress
from edgewright_pipelines.data.report import Progress, Reporter, silent

# Commit 8e7cd45 is the one that the pinned checksums were taken from. The address is untried; the checksum of each
# file decides what is kept, so a wrong or moved address can only fail, never bring other data. Any mirror will do.
ARCHIVE_URL = "https://github.com/areinhardt/tracebase/archive/8e7cd45.tar.gz"

_NOTICE = """Contains information from the tracebase data set, which is made available at http://www.tracebase.org under
the Open Database License (ODbL). Keep this notice with the data, and do not commit the data to the project.
"""


@dataclass(frozen=True, slots=True)
class Fetched:
    """Files that were there and right before, and files that came now."""

    kept: int
    added: int


def fetch(
    url: str,
    destination: Path,
    manifest: Manifest,
    client: httpx2.Client,
    report: Reporter = silent,
    pause: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Make `destination` hold every file of `manifest`, zstd-compressed, from the .tar.gz at `url`.

    Files that are there with the right content are kept, wrong ones replaced; an interrupted download goes on where it
    stopped. Raises FetchError, whose text says what is missing; files that were right stay.
    """
    try:
        wanted = _missing(destination, manifest, report)
        kept = len(manifest) - len(wanted)
        unfinished = destination / INCOMPLETE
        if not wanted:
            unfinished.unlink(missing_ok=True)
            return Fetched(kept=kept, added=0)
        destination.mkdir(parents=True, exist_ok=True)
        unfinished.touch()  # gone only when every pinned file is there: a part of the data must not pass for all
        partial = Partial(destination / ".download")
        download(url, partial, client, report, pause)
        changed = _unpack(url, partial, destination, wanted, report)
        partial.remove()
        (destination / "NOTICE.txt").write_text(_NOTICE, encoding="utf-8")
    except OSError as error:
        raise FetchError(f"{error.filename or destination} cannot be written: {error.strerror or error}.") from error
    _complain(url, changed, set(wanted) - changed, destination)
    unfinished.unlink(missing_ok=True)
    return Fetched(kept=kept, added=len(manifest) - kept)


def _missing(destination: Path, manifest: Manifest, report: Reporter) -> dict[str, str]:
    """Entries of the manifest that `destination` does not hold with the right content."""
    missing: dict[str, str] = {}
    for done, (name, digest) in enumerate(manifest.items(), start=1):
        if not any(hashlib.sha256(content).hexdigest() == digest for content in _contents(destination / name)):
            missing[name] = digest
        report(Progress("check files", done, len(manifest)))
    return missing


def _contents(file: Path) -> Iterator[bytes]:
    if file.is_file():
        yield file.read_bytes()
    compressed = _compressed(file)
    if compressed.is_file():
        try:
            yield decompress(compressed.read_bytes())
        except FileProblem:
            return  # a broken file is as good as none: it will be replaced


def _compressed(file: Path) -> Path:
    return file.with_name(f"{file.name}.zst")


def _unpack(url: str, partial: Partial, destination: Path, wanted: dict[str, str], report: Reporter) -> set[str]:
    """Write the wanted files of the archive, taking them out of `wanted`; returns those with other content."""
    changed: set[str] = set()
    total = len(wanted)
    try:
        with tarfile.open(partial.data, mode="r|gz") as archive:
            for member in archive:
                name = str(PurePosixPath(*PurePosixPath(member.name).parts[1:]))  # the first part is repository-commit
                if name not in wanted or not member.isfile() or member.size > MAX_FILE_BYTES:
                    continue
                content = _content(archive, member)
                if hashlib.sha256(content).hexdigest() == wanted[name]:
                    _write(destination / name, content)
                    del wanted[name]
                    report(Progress("unpack files", total - len(wanted), total))
                else:
                    changed.add(name)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        partial.remove()
        raise FetchError(
            f"What {url} sent is not a whole .tar.gz archive ({error}); it was removed."
            " Check the address, or run the same command again."
        ) from error
    return changed & wanted.keys()


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file else b""


def _write(file: Path, content: bytes) -> None:
    """Compress into place by a rename; an uncompressed file of other content goes, or there would be two."""
    file.parent.mkdir(parents=True, exist_ok=True)
    target = _compressed(file)
    partial = target.with_name(f".{target.name}.partial")
    partial.write_bytes(zstd.compress(content))
    partial.replace(target)
    file.unlink(missing_ok=True)


def _complain(url: str, changed: set[str], absent: set[str], destination: Path) -> None:
    problems = [
        f"{len(names)} {what}, such as {sorted(names)[0]}"
        for names, what in ((changed, "with other content than pinned"), (absent, "not in the archive"))
        if names
    ]
    if problems:
        raise FetchError(
            f"{url} did not bring all pinned files: {'; '.join(problems)}."
            f" The right ones are in {destination}; name the archive of the pinned commit to get the rest."
        )
