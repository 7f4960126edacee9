"""Asks Prometheus the PromQL checks of a gate in the background: one finite number, or why there is none."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import httpx2

from edgewright_contract.compressedmodel import Gates, PrometheusCheck
from edgewright_contract.quantities import seconds
from edgewright_operator.facts import PrometheusAnswer

_STALE_INTERVALS = 3
"""An answer older than so many intervals is none."""


@dataclass(slots=True)
class Asked:
    """The last answers of one model, and when (monotonic) they came."""

    checks: list[PrometheusCheck]
    at: float
    answers: dict[str, PrometheusAnswer] = field(default_factory=dict)


@dataclass(slots=True)
class Promql:
    """`url` is operator configuration and never stands in an object; none: every check says so."""

    url: str | None
    client: httpx2.AsyncClient
    known: dict[str, Asked] = field(default_factory=dict)
    asking: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def latest(self, key: str, gates: Gates, monotonic: float) -> Mapping[str, PrometheusAnswer]:
        """The answers at hand; asks anew once an interval. A check that is new has none."""
        if not gates.prometheus:
            self.known.pop(key, None)
            return {}
        interval, known = seconds(gates.interval), self.known.get(key)
        fitting = known if known is not None and known.checks == gates.prometheus else None
        if key not in self.asking and (fitting is None or monotonic - fitting.at >= interval):
            self.asking[key] = asyncio.ensure_future(self._ask(key, list(gates.prometheus), monotonic))
        if fitting is None or monotonic - fitting.at > _STALE_INTERVALS * interval:
            return {}
        return fitting.answers

    def forget(self, key: str) -> None:
        """The model is gone."""
        self.known.pop(key, None)
        if (asking := self.asking.pop(key, None)) is not None:
            asking.cancel()

    async def _ask(self, key: str, checks: list[PrometheusCheck], monotonic: float) -> None:
        try:
            answers = await asyncio.gather(*(self.ask(check.query) for check in checks))
            named = {check.name: answer for check, answer in zip(checks, answers, strict=True)}
            self.known[key] = Asked(checks, monotonic, named)
        finally:
            if self.asking.get(key) is asyncio.current_task():  # forgotten and begun anew: that one is not ours
                del self.asking[key]

    async def ask(self, query: str) -> PrometheusAnswer:
        """One instant query; more than one series is a fault of the query, none is no data."""
        if self.url is None:
            return PrometheusAnswer(None, "the operator knows no Prometheus: set EDGEWRIGHT_OPERATOR_PROMETHEUS_URL")
        try:
            answer = await self.client.get(f"{self.url.rstrip('/')}/api/v1/query", params={"query": query})
            body = answer.json()
        except (httpx2.HTTPError, ValueError) as error:
            return PrometheusAnswer(None, f"Prometheus cannot be asked: {type(error).__name__}: {error}"[:200])
        if not isinstance(body, dict) or body.get("status") != "success":
            said = body.get("error") if isinstance(body, dict) else "no object"
            return PrometheusAnswer(None, f"Prometheus refused the query ({answer.status_code}): {said}"[:200])
        return _number(body.get("data"))


def _number(data: Any) -> PrometheusAnswer:
    try:
        kind, result = data["resultType"], data["result"]
        if kind == "scalar":
            value = float(result[1])
        elif kind != "vector" or len(result) > 1:
            return PrometheusAnswer(None, f"the query gave {len(result)} series: make it give one number")
        elif not result:
            return PrometheusAnswer(None)
        else:
            value = float(result[0]["value"][1])
    except (KeyError, IndexError, TypeError, ValueError):
        return PrometheusAnswer(None, "Prometheus gave something that is no number")
    if not isfinite(value):
        return PrometheusAnswer(None, f"the query gave {value}")
    return PrometheusAnswer(value)
