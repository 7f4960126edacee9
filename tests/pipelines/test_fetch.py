import hashlib
import io
import tarfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

import httpx2
import pytest
from backports import zstd

from edgewright_pipelines.data.download import ATTEMPTS, FetchError
from edgewright_pipelines.data.fetch import fetch
from edgewright_pipelines.data.location import INCOMPLETE, LocationError, locate
from edgewright_pipelines.data.manifest import ManifestError, packaged, parse_manifest, write_manifest

FILES = {f"complete/Lamp/dev_AAAAAA_2011.11.{day:02d}.csv": bytes([day]) * 90_000 for day in range(1, 6)}
MANIFEST = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


def archive(files, extra=()):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=0) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"tracebase-8e7cd45/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in extra:
            tar.addfile(member)
    return buffer.getvalue()


@dataclass
class Site:
    """What the server serves and how it behaves; `requests` keeps the Range header of each request."""

    content: bytes = b""
    etag: str | None = '"one"'
    cut_after: int | None = None  # bytes of each answer before the connection is cut
    ranges: bool = True
    answers: list[int] = field(default_factory=list)  # status codes to give first
    wrong_range: bool = False
    location: str | None = None
    on_request: object = None
    requests: list[str | None] = field(default_factory=list)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self):
        site, wanted = self.site, self.headers.get("Range")
        site.requests.append(wanted)
        if callable(site.on_request):
            site.on_request(site)
        self.close_connection = True
        if site.answers:
            return self.reply(site.answers.pop(0), b"busy", {})
        if site.location and self.path != site.location:
            return self.reply(302, b"", {"Location": site.location})
        headers = {"ETag": site.etag} if site.etag else {}
        if wanted and site.ranges and self.headers.get("If-Range") == site.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(site.content):
                return self.reply(416, b"", {"Content-Range": f"bytes */{len(site.content)}"})
            shown = start + 7 if site.wrong_range else start
            headers["Content-Range"] = f"bytes {shown}-{len(site.content) - 1}/{len(site.content)}"
            return self.reply(206, site.content[start:], headers)
        return self.reply(200, site.content, headers)

    def reply(self, status, body, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body if self.site.cut_after is None else body[: self.site.cut_after])


@pytest.fixture
def site(http_server):
    site = Site(content=archive(FILES))
    site.url = http_server(type("Bound", (Handler,), {"site": site})) + "/archive.tar.gz"
    return site


@pytest.fixture
def client():
    with httpx2.Client(trust_env=False, timeout=5) as client:
        yield client


@pytest.fixture
def get(site, client, tmp_path):
    def _get(manifest=MANIFEST, report=lambda _: None, url=None, folder=None):
        return fetch(url or site.url, folder or tmp_path / "data", manifest, client, report, pause=lambda _: None)

    return _get


def complete(folder):
    return all(zstd.decompress((folder / f"{name}.zst").read_bytes()) == FILES[name] for name in FILES)


def test_a_plain_download_is_unpacked_checked_and_tidied(site, get, tmp_path):
    told = []
    result = get(report=told.append)
    assert (result.kept, result.added) == (0, 5)
    assert complete(tmp_path / "data")
    assert not (tmp_path / "data/.download").exists()
    assert "ODbL" in (tmp_path / "data/NOTICE.txt").read_text()
    assert [progress.done for progress in told if progress.step == "unpack files"] == [1, 2, 3, 4, 5]
    assert max(progress.done for progress in told if progress.step == "fetch data") == len(site.content)
    assert len(site.requests) == 1


def test_nothing_is_asked_when_everything_is_there(site, get):
    get()
    site.requests.clear()
    assert get().kept == 5
    assert site.requests == []


def test_uncompressed_files_count_and_wrong_ones_are_replaced(get, tmp_path):
    for name, content in FILES.items():
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    wrong, broken, *_ = FILES
    (tmp_path / "data" / wrong).write_bytes(b"other")
    (tmp_path / "data" / broken).unlink()
    (tmp_path / "data" / f"{broken}.zst").write_bytes(b"not zstd")
    result = get()
    assert (result.kept, result.added) == (3, 2)
    assert not (tmp_path / "data" / wrong).exists()
    for name in (wrong, broken):
        assert zstd.decompress((tmp_path / "data" / f"{name}.zst").read_bytes()) == FILES[name]


def test_cut_connections_are_resumed_and_no_byte_comes_twice(site, get, tmp_path):
    site.cut_after = 100_000
    get()
    assert complete(tmp_path / "data")
    starts = [int(wanted[6:-1]) for wanted in site.requests if wanted]
    assert starts == list(range(100_000, len(site.content), 100_000))


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(site, get, tmp_path):
    site.cut_after = 150_000

    def die(site):
        site.answers = [503] if len(site.requests) > 1 else []

    site.on_request = die
    with pytest.raises(
        FetchError, match=r"brought nothing new \(last: the server answered 503\).*150,000 bytes so far"
    ):
        get()
    assert len(site.requests) == 1 + ATTEMPTS
    site.on_request, site.answers, site.cut_after = None, [], None
    site.requests.clear()
    get()
    assert site.requests == ["bytes=150000-"]
    assert complete(tmp_path / "data")


def test_a_file_that_changes_between_two_pieces_is_started_anew(site, get, tmp_path):
    old, new = archive(dict.fromkeys(FILES, b"old" * 30000)), site.content
    site.content, site.etag, site.cut_after = old, '"old"', 100_000

    def change(site):
        if len(site.requests) == 2:
            site.content, site.etag, site.cut_after = new, '"new"', None

    site.on_request = change
    get()
    assert complete(tmp_path / "data")
    assert site.requests == [None, "bytes=100000-"]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_etag_nothing_is_pieced_together(site, get, etag):
    site.etag, site.cut_after = etag, 100_000
    with pytest.raises(FetchError, match="brought nothing new"):
        get()
    assert set(site.requests) == {None}


def test_a_server_without_ranges_is_asked_until_one_answer_is_whole(site, get, tmp_path):
    site.ranges, site.cut_after = False, 100_000

    def heal(site):
        site.cut_after = None if len(site.requests) == 3 else 100_000

    site.on_request = heal
    get()
    assert complete(tmp_path / "data")


def test_a_wrong_content_range_is_not_appended(site, get, tmp_path):
    site.cut_after, site.wrong_range = 100_000, True

    def heal(site):
        site.cut_after = 100_000 if len(site.requests) == 1 else None

    site.on_request = heal
    get()
    assert site.requests == [None, "bytes=100000-", None]
    assert complete(tmp_path / "data")


def test_an_archive_that_had_fully_arrived_is_not_fetched_again(site, get, tmp_path):
    download = tmp_path / "data/.download"
    download.mkdir(parents=True)
    (download / "archive.partial").write_bytes(site.content)
    (download / "state.json").write_text(f'{{"url": "{site.url}", "etag": "\\"one\\""}}')
    get()
    assert site.requests == [f"bytes={len(site.content)}-"]
    assert complete(tmp_path / "data")


def test_redirects_are_followed_and_busy_servers_asked_again(site, get, tmp_path):
    site.location, site.answers = "/elsewhere", [503, 429]
    get()
    assert complete(tmp_path / "data")


def test_other_content_is_refused_by_name_and_the_right_files_stay(site, get, tmp_path):
    changed, absent, *right = FILES
    site.content = archive({changed: b"changed", **{name: FILES[name] for name in right}})
    with pytest.raises(FetchError) as caught:
        get()
    assert f"1 with other content than pinned, such as {changed}" in str(caught.value)
    assert f"1 not in the archive, such as {absent}" in str(caught.value)
    assert sorted(file.name for file in (tmp_path / "data").rglob("*.zst")) == [f"{name[14:]}.zst" for name in right]
    site.content, site.etag = archive(FILES), '"two"'
    assert get().added == 2
    assert complete(tmp_path / "data")


def test_a_part_of_the_data_does_not_pass_for_all_of_it(site, get, tmp_path):
    folder = tmp_path / "data" / "tracebase"
    (tmp_path / "data").mkdir()
    changed, *right = FILES
    site.content = archive({changed: b"changed", **{name: FILES[name] for name in right}})
    with pytest.raises(FetchError):
        get(folder=folder)
    assert (folder / "complete").is_dir()
    assert locate({}, tmp_path) is None
    with pytest.raises(LocationError, match="did not finish it; run it again"):
        locate({"TRACEBASE_DIR": str(folder)}, tmp_path)
    site.content, site.etag = archive(FILES), '"two"'
    get(folder=folder)
    assert locate({}, tmp_path) == folder
    (folder / INCOMPLETE).touch()  # all is there, and a former run was killed before it could say so
    get(folder=folder)
    assert locate({"TRACEBASE_DIR": str(folder)}, tmp_path) == folder


@pytest.mark.parametrize("garbage", [b"", b"<html>please sign in</html>", b"\x1f\x8b" + b"\x00" * 500])
def test_garbage_is_refused_and_removed(site, get, tmp_path, garbage):
    site.content = garbage
    with pytest.raises(FetchError, match=r"is not a whole \.tar\.gz archive .*Check the address"):
        get()
    assert not (tmp_path / "data/.download").exists()


def test_an_archive_that_ends_early_keeps_what_was_whole(site, get, tmp_path):
    site.content = site.content[: len(site.content) // 2]
    with pytest.raises(FetchError, match="is not a whole"):
        get()
    assert 1 <= len(list((tmp_path / "data").rglob("*.zst"))) < 5


def test_nothing_outside_the_manifest_is_written(site, get, tmp_path):
    link = tarfile.TarInfo("tracebase-8e7cd45/complete/Lamp/link.csv")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    site.content = archive({**FILES, "../../escape.csv": b"x", "complete/Lamp/dev_OTHER_2011.11.01.csv": b"x"}, [link])
    get()
    written = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    assert written == {f"data/{name}.zst" for name in FILES} | {"data/NOTICE.txt"}


def test_refusals_are_not_repeated(site, get):
    site.answers = [404]
    with pytest.raises(FetchError, match="answered 404 Not Found; check the address"):
        get()
    assert len(site.requests) == 1
    with pytest.raises(FetchError, match="is not an address"):
        get(url="ftp://127.0.0.1/x")
    with pytest.raises(FetchError, match="is not an address"):
        get(url="no address")


def test_a_place_that_cannot_be_written_is_a_sentence(get, tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(FetchError, match="cannot be written"):
        get()


# The manifest


def test_packaged_manifest_names_the_pinned_files_and_is_small():
    manifest = packaged()
    assert len(manifest) == 1407
    assert {name.split("/")[0] for name in manifest} == {"complete", "incomplete", "synthetic"}
    assert len(write_manifest(manifest)) < 200_000


def test_manifest_round_trip():
    assert parse_manifest(write_manifest(MANIFEST)) == MANIFEST


@pytest.mark.parametrize(
    "text", ["", "[a]\nxyz b", f"[..]\n{'0' * 64} b", f"[/etc]\n{'0' * 64} b", f"[a]\n{'0' * 64} b\n{'1' * 64} b"]
)
def test_a_bad_manifest_is_refused_in_words(text):
    with pytest.raises(ManifestError, match=r"^(Line \d of the manifest is|The manifest names no file)"):
        parse_manifest(text)
