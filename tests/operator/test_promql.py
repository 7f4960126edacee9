"""PromQL checks: a number, or the reason why there is none; asked once an interval in the background."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from edgewright_contract.compressedmodel import Gates
from edgewright_operator.facts import PrometheusAnswer
from edgewright_operator.promql import Promql


def vector(*values: str) -> dict[str, Any]:
    series = [{"metric": {}, "value": [0, value]} for value in values]
    return {"status": "success", "data": {"resultType": "vector", "result": series}}


@pytest.mark.parametrize(
    ("code", "body", "value", "problem"),
    [
        (200, vector("0.5"), 0.5, ""),
        (200, {"status": "success", "data": {"resultType": "scalar", "result": [0, "3"]}}, 3.0, ""),
        (200, vector(), None, ""),
        (200, vector("1", "2"), None, "2 series"),
        (200, vector("NaN"), None, "nan"),
        (200, vector("+Inf"), None, "inf"),
        (400, {"status": "error", "error": "parse error"}, None, "parse error"),
        (200, [], None, "no object"),
        (200, {"status": "success", "data": {}}, None, "no number"),
    ],
)
async def test_every_answer_is_a_number_or_a_sentence(code: int, body: Any, value: float | None, problem: str) -> None:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(code, json=body))
    async with httpx2.AsyncClient(transport=transport) as client:
        found = await Promql("http://p", client).ask("up")
    assert found.value == value
    assert problem in found.problem


async def test_no_prometheus_says_which_setting_lacks() -> None:
    async with httpx2.AsyncClient() as client:
        found = await Promql(None, client).ask("up")
    assert "EDGEWRIGHT_OPERATOR_PROMETHEUS_URL" in found.problem


async def test_it_is_asked_once_an_interval_and_grows_stale() -> None:
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.params["query"])
        return httpx2.Response(200, json=vector("1"))

    gates = Gates.model_validate({"interval": "60s", "prometheus": [{"name": "e", "query": "q", "max": 2}]})
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
        promql = Promql("http://p", client)
        assert promql.latest("n/x", gates, 0.0) == {}
        await asyncio.gather(*promql.asking.values())
        assert promql.latest("n/x", gates, 30.0) == {"e": PrometheusAnswer(1.0)}
        assert asked == ["q"]
        promql.asking["n/x"] = asyncio.ensure_future(asyncio.sleep(0))  # Prometheus hangs
        assert promql.latest("n/x", gates, 500.0) == {}
        await promql.asking["n/x"]


async def test_a_model_that_is_gone_is_forgotten_also_while_it_is_asked_about() -> None:
    gates = Gates.model_validate({"prometheus": [{"name": "e", "query": "q", "max": 2}]})
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=vector("1")))
    async with httpx2.AsyncClient(transport=transport) as client:
        promql = Promql("http://p", client)
        promql.latest("n/x", gates, 0.0)
        await asyncio.gather(*promql.asking.values())
        promql.latest("n/x", gates, 100.0)
        (asking,) = promql.asking.values()
        promql.forget("n/x")
        await asyncio.gather(asking, return_exceptions=True)
        assert asking.cancelled()
    assert (promql.known, promql.asking) == ({}, {})
