"""`edgewright data` as a person or a script runs it: what fails is a sentence and an exit code, what came is kept."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgewright_cli import data
from edgewright_cli.main import app
from edgewright_pipelines.data import download, manifest

FILES = {f"complete/Lamp/dev_AAAAAA_2011.11.{day:02d}.csv": bytes([day]) * 90_000 for day in range(1, 6)}


@dataclass
class Site:
    """What the server sends: the archive, in pieces of `piece` bytes, `pieces` of them and then a reset."""

    content: bytes
    status: int = 200
    pieces: int | None = None
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.site.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        body = self.site.content[start:]
        self.send_response(206 if wanted and self.site.status == 200 else self.site.status)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(self.site.content) - 1}/{len(self.site.content)}")
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.site.pieces is None else body[: self.site.pieces])
        self.site.pieces = self.site.pieces and 0  # the second answer brings nothing


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, http_server: Callable[[type[Handler]], str]) -> Site:
    """A server with an archive of five files, which are the ones that are pinned."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=0) as tar:
        for name, content in FILES.items():
            member = tarfile.TarInfo(f"tracebase-8e7cd45/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    pinned = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    monkeypatch.setattr(manifest, "packaged", lambda: pinned)
    monkeypatch.setattr(download.time, "sleep", lambda _: None)
    found = Site(buffer.getvalue())
    found.url = http_server(type("Bound", (Handler,), {"site": found})) + "/archive.tar.gz"
    return found


def fetch(site: Site, folder: Path, *more: str) -> Result:
    return CliRunner().invoke(app, ["data", "fetch", str(folder), "--url", site.url, "--json", *more])


def said(result: Result) -> str:
    """The sentence of a command that failed."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    return " ".join(result.stderr.split())


def test_a_whole_fetch_says_what_came(site: Site, tmp_path: Path) -> None:
    result = fetch(site, tmp_path / "data", "--quick")
    told = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == 0
    assert told == {
        "destination": str(tmp_path / "data"),
        "finished": True,
        "kept": 0,
        "added": 5,
        "leftOut": [],
    }


def test_quick_stops_and_the_next_run_goes_on(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pieces = 200_000  # then nothing more comes, and the tries would take longer than --quick may
    monkeypatch.setattr(data, "QUICK_SECONDS", 0.3)
    result = fetch(site, tmp_path / "data", "--quick")
    told = json.loads(result.stdout.splitlines()[-1])
    assert (result.exit_code, told["finished"]) == (0, False)
    assert "goes on from there" in told["leftOut"][0]
    site.pieces = None
    site.asked.clear()
    again = json.loads(fetch(site, tmp_path / "data").stdout.splitlines()[-1])
    assert (again["finished"], again["added"]) == (True, 5)
    assert site.asked == ["bytes=200000-"]


def test_an_address_that_is_not_there(site: Site, tmp_path: Path) -> None:
    site.status = 404
    assert "answered 404 Not Found; check the address" in said(fetch(site, tmp_path / "data"))


def test_a_connection_that_is_reset_again_and_again_keeps_what_came(site: Site, tmp_path: Path) -> None:
    site.pieces = 200_000
    sentence = said(fetch(site, tmp_path / "data"))
    assert "brought nothing new" in sentence
    assert "200,000 bytes so far are kept; run the same command again to go on" in sentence


def test_an_archive_with_other_content(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "packaged", lambda: dict.fromkeys(FILES, "0" * 64))
    assert "5 with other content than pinned, such as complete/Lamp/" in said(fetch(site, tmp_path / "data"))


def test_a_disk_that_fills_up(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "edgewright-test", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here: needs root with CAP_SYS_ADMIN")
    try:
        assert "cannot be written: No space left on device" in said(fetch(site, folder))
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("quick", [False, True])
def test_quick_reads_a_part_that_is_spread_over_all_classes(
    tracebase_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    files = len(list(tracebase_folder.rglob("*.csv")))
    classes = {file.parent.name for file in tracebase_folder.rglob("*.csv")}
    monkeypatch.setattr(data, "QUICK_FILES", files // 2)
    arguments = ["data", "report", "--data", str(tracebase_folder), "--json", *(["--quick"] if quick else [])]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout.splitlines()[-1])
    assert told["files"] == (files // 2 if quick else files)
    assert len(told["leftOut"]) == quick
    assert ("Left out by --quick" in result.stderr) == quick
    assert set(told["days"]) == classes
    assert told["source"] == tracebase_folder.name
    assert (tmp_path / ".edgewright/traces").exists() == (not quick)  # a part must not push the whole out of the cache
