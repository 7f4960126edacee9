"""A registry that lies, breaks or was taken over: no request leaves its host, no answer grows without end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from edgewright_contract import names
from edgewright_operator import mlflow
from edgewright_operator.mlflow import MlflowRegistry

URL = "http://mlflow:5000"
Answer = Callable[[httpx2.Request], httpx2.Response]


class Server:
    """Answers with `answer` and writes down where every request went."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.seen = answer, list[httpx2.URL]()

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.seen.append(request.url)
        return self.answer(request)

    def registry(self) -> MlflowRegistry:
        return MlflowRegistry(URL, httpx2.AsyncClient(transport=httpx2.MockTransport(self)))

    def hosts(self) -> set[str]:
        return {f"{url.scheme}://{url.host}:{url.port}" for url in self.seen}


def constant(status: int, body: Any = None, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda _: httpx2.Response(status, content=content, headers=headers)


async def _alias(registry: MlflowRegistry) -> object:
    return await registry.alias("nilm", "production")


async def _version(registry: MlflowRegistry) -> object:
    return await registry.version("nilm", 1)


async def _tagged(registry: MlflowRegistry) -> object:
    return await registry.with_tag("nilm", "t", "v")


async def _base(registry: MlflowRegistry) -> object:
    return await registry.artifact_base("nilm", 1)


async def _download(registry: MlflowRegistry) -> object:
    return await registry.download("1/m/manifest.json", 1000)


CALLS = [_alias, _version, _tagged, _base, _download]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "answer",
    [
        constant(500, {"error_code": "INTERNAL_ERROR", "message": "boom"}),
        constant(401, {"error_code": "UNAUTHENTICATED"}),
        constant(403, b"<html>no</html>"),
        constant(302, b"", Location="http://169.254.169.254/latest/meta-data/"),
        constant(302, b"", Location="https://mlflow:5000/x"),
        constant(302, b"", Location="http://mlflow:5001/x"),
        constant(302, b"", Location="//evil/x"),
        constant(302, b"", Location="file:///etc/passwd"),
        constant(302, b"", Location="http://mlflow:5000@evil/"),
    ],
)
async def test_a_broken_or_hostile_server_is_unavailable_and_no_request_leaves_its_host(
    call: Callable[[MlflowRegistry], Any], answer: Answer
) -> None:
    server = Server(answer)
    with pytest.raises(mlflow.Unavailable, match="MLflow"):
        await call(server.registry())
    assert server.hosts() == {URL}


@pytest.mark.parametrize("call", CALLS[:4])
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"1", b"{" * 100_000, b'{"a":' * 5_000, b"\xff", b"x" * (4 * 1024 * 1024 + 1)]
)
async def test_an_answer_that_is_no_object_is_unavailable(call: Callable[[MlflowRegistry], Any], body: bytes) -> None:
    for status in (200, 404):
        with pytest.raises(mlflow.Unavailable):
            await call(Server(constant(status, body)).registry())


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model_version": None},
        {"model_version": {}},
        {"model_version": {"version": "x"}},
        {"model_version": {"version": "1", "tags": [1]}},
        {"model_version": {"version": "1", "tags": [{"value": "no key"}]}},
    ],
)
async def test_a_version_that_cannot_be_read_is_unavailable(body: Any) -> None:
    for call in (_alias, _version):
        with pytest.raises(mlflow.Unavailable, match="cannot be read"):
            await call(Server(constant(200, body)).registry())


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc",
        "s3://bucket/x",
        "http://evil/x",
        "mlflow-artifacts://evil/x",
        "mlflow-artifacts:/../../etc",
        "mlflow-artifacts:/1/../../x",
        "mlflow-artifacts:/1/%2e%2e/x",
        "mlflow-artifacts:/1/m?x=y",
        "mlflow-artifacts:/1/m#x",
        "mlflow-artifacts:/a b",
        "mlflow-artifacts:/",
        "",
        None,
        7,
    ],
)
async def test_files_elsewhere_are_not_read(uri: Any) -> None:
    with pytest.raises(mlflow.Unavailable, match="only files that MLflow serves are read"):
        await Server(constant(200, {"artifact_uri": uri})).registry().artifact_base("nilm", 1)


@pytest.mark.parametrize(
    "path", ["../x", "a/../b", "/etc/passwd", "a//b", "a/./b", "a b", "a?x", "a#x", "a\\b", "", "%2e%2e/x", "a\n"]
)
async def test_a_path_that_is_not_plain_is_never_asked_for(path: str) -> None:
    server = Server(constant(200, b"x"))
    with pytest.raises(mlflow.ArtifactNotFound):
        await server.registry().download(path, 10)
    assert server.seen == []


async def test_a_redirect_on_the_same_host_is_followed_but_not_for_ever() -> None:
    once = Server(
        lambda request: (
            httpx2.Response(302, headers={"Location": "/moved"})
            if request.url.path != "/moved"
            else httpx2.Response(200, content=b"here")
        )
    )
    assert await once.registry().download("a", 10) == b"here"
    circle = Server(constant(302, b"", Location="/again"))
    with pytest.raises(mlflow.Unavailable, match="more than 3 redirects"):
        await circle.registry().download("a", 10)
    assert len(circle.seen) == 4


async def test_an_endless_file_is_left_after_the_limit() -> None:
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 1000
            yield b"x" * 1000

    server = Server(lambda _: httpx2.Response(200, content=endless()))
    with pytest.raises(mlflow.ArtifactTooLarge, match="more than 5000 bytes"):
        await server.registry().download("a", 5000)
    assert given <= 7000


async def test_a_file_that_breaks_off_is_unavailable() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise httpx2.ReadError("reset")

    with pytest.raises(mlflow.Unavailable, match="reset"):
        await Server(lambda _: httpx2.Response(200, content=broken())).registry().download("a", 5000)


async def test_what_is_missing_has_its_own_error() -> None:
    gone = constant(404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "gone"})
    for call in (_alias, _version, _base):
        with pytest.raises(mlflow.ModelNotFound, match="MLflow has no registered model nilm"):
            await call(Server(gone).registry())

    def with_model(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("registered-models/get"):
            return httpx2.Response(200, json={})
        return gone(request)

    for call, error in (
        (_alias, mlflow.AliasNotFound),
        (_version, mlflow.VersionNotFound),
        (_base, mlflow.VersionNotFound),
    ):
        with pytest.raises(error):
            await call(Server(with_model).registry())


async def test_every_page_is_looked_through_but_pages_without_end_are_left() -> None:
    def pages(request: httpx2.Request) -> httpx2.Response:
        page = int(request.url.params.get("page_token", "0"))
        tags = [{"key": names.TAG_MANIFEST, "value": str(page)}]
        return httpx2.Response(
            200, json={"model_versions": [{"version": page + 1, "tags": tags}], "next_page_token": str(page + 1)}
        )

    found = await Server(pages).registry().with_tag("nilm", names.TAG_MANIFEST, "7")
    assert found is not None
    assert found.version == 8
    endless = Server(pages)
    assert await endless.registry().with_tag("nilm", names.TAG_MANIFEST, "never") is None
    assert len(endless.seen) == 50


async def test_a_name_cannot_leave_the_filter() -> None:
    server = Server(constant(200, {}))
    await server.registry().with_tag("x' OR name='y", names.TAG_MANIFEST, "1")
    assert server.seen == []


@pytest.mark.parametrize(
    ("user", "password", "token", "expected"),
    [
        ("", None, None, None),
        ("edge", "p:w\n", None, "Basic ZWRnZTpwOnc="),
        ("edge", "p", "t0ken\n", "Bearer t0ken"),
    ],
)
async def test_credentials_come_from_files_and_go_to_mlflow_only(
    tmp_path: Path, user: str, password: str | None, token: str | None, expected: str | None
) -> None:
    files: dict[str, Path | None] = {"password": None, "token": None}
    for name, text in (("password", password), ("token", token)):
        if text is not None:
            files[name] = tmp_path / name
            (tmp_path / name).write_text(text)
    given: list[str | None] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        given.append(request.headers.get("Authorization"))
        return httpx2.Response(302, headers={"Location": "http://evil/"})

    login = mlflow.Credentials(user, files["password"], files["token"])
    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer), auth=login)
    with pytest.raises(mlflow.Unavailable, match="another host"):
        await MlflowRegistry(URL, client).download("a", 10)
    assert given == [expected]


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
async def test_credentials_that_cannot_be_read_are_told(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "gone").write_bytes(content)
    login = mlflow.Credentials("edge", tmp_path / "gone", None)
    client = httpx2.AsyncClient(transport=httpx2.MockTransport(constant(200, {})), auth=login)
    for call in CALLS:
        with pytest.raises(mlflow.Unavailable, match=r"credentials of MLflow cannot be read.*gone"):
            await call(MlflowRegistry(URL, client))
