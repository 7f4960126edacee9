"""From a CompressedModel's source to a verified release, or to the one reason why there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from edgewright_contract import names
from edgewright_contract.compressedmodel import Source
from edgewright_contract.conditions import Reason
from edgewright_operator.facts import SourceProblem
from edgewright_operator.mlflow import MlflowRegistry
from edgewright_operator.source import Gateway, resolve

MANIFEST = "sha256:" + "1" * 64
SOURCE = Source.model_validate({"registeredModel": "nilm", "alias": "production"})


async def asked(tmp_path: Path, tag: str, status: int, body: Any) -> tuple[SourceProblem, list[str]]:
    seen: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(f"{request.method} {request.url.host}")
        if request.url.host == "gateway":
            assert request.headers["Authorization"] == "Bearer secret"
            if isinstance(body, Exception):
                raise body
            return httpx2.Response(status, json=body)
        tags = [{"key": names.TAG_MANIFEST, "value": tag}] if tag else []
        return httpx2.Response(200, json={"model_version": {"version": "3", "tags": tags}})

    (tmp_path / "token").write_text("secret\n")
    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    gateway = Gateway("http://gateway/", tmp_path / "token", client)
    found, trust = await resolve(SOURCE, MlflowRegistry("http://mlflow", client), gateway)
    assert isinstance(found, SourceProblem)
    assert trust is None
    return found, seen


@pytest.mark.parametrize(
    ("status", "told", "reason"),
    [
        (401, "Unauthenticated", Reason.GATEWAY_UNAVAILABLE),
        (403, "Forbidden", Reason.GATEWAY_UNAVAILABLE),
        (404, "ModelNotFound", Reason.MODEL_NOT_FOUND),
        (404, "VersionNotFound", Reason.VERSION_NOT_FOUND),
        (404, "NotFound", Reason.GATEWAY_UNAVAILABLE),
        (409, "ReleaseChanged", Reason.RELEASE_CHANGED),
        (422, "ReleaseRefused", Reason.RELEASE_REFUSED),
        (422, "TrustRefused", Reason.RELEASE_REFUSED),
        (503, "SourceUnavailable", Reason.SOURCE_UNAVAILABLE),
        (503, "ApiUnavailable", Reason.GATEWAY_UNAVAILABLE),
        (503, "StorageError", Reason.GATEWAY_UNAVAILABLE),
        (500, "Whatever", Reason.GATEWAY_UNAVAILABLE),
    ],
)
async def test_each_refusal_of_the_gateway_is_a_reason_with_its_sentence(
    tmp_path: Path, status: int, told: str, reason: Reason
) -> None:
    found, _ = await asked(tmp_path, MANIFEST, status, {"reason": told, "message": "why so"})
    assert (found.reason, found.message) == (reason, "why so")


async def test_a_refusal_without_a_sentence_tells_its_status(tmp_path: Path) -> None:
    found, _ = await asked(tmp_path, MANIFEST, 502, {})
    assert "502" in found.message


@pytest.mark.parametrize("tag", ["", "latest", "sha256:12", MANIFEST.upper()])
async def test_a_version_without_its_tag_is_not_published_and_the_gateway_is_not_asked(
    tmp_path: Path, tag: str
) -> None:
    found, seen = await asked(tmp_path, tag, 200, {})
    assert found.reason is Reason.NOT_PUBLISHED
    assert seen == ["GET mlflow"]


@pytest.mark.parametrize("error", [httpx2.ConnectError("refused"), httpx2.ReadTimeout("slow")])
async def test_a_gateway_that_is_away_is_told(tmp_path: Path, error: Exception) -> None:
    found, _ = await asked(tmp_path, MANIFEST, 0, error)
    assert found.reason is Reason.GATEWAY_UNAVAILABLE
    assert str(error) in found.message
