"""What the gateway counts, for Prometheus; labels come from closed sets."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ROUTES: Final = ("blobs", "releases", "trust", "healthz", "metrics")


class Metrics:
    """The series of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "edgewright_gateway_requests_total", "Answered requests.", ["route", "code"], registry=self.registry
        )
        self.sent = Counter(
            "edgewright_gateway_sent_bytes_total", "Bytes of bodies that were sent.", registry=self.registry
        )
        self.releases = Gauge("edgewright_gateway_releases", "Verified releases in memory.", registry=self.registry)
        self.trust = Gauge("edgewright_gateway_trust_sequence", "Sequence of trust.json.", registry=self.registry)

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self.registry)


class Counted:
    """The application, each answer counted with its route and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and look at what is sent."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        first = scope["path"].strip("/").partition("/")[0]
        route = first if first in ROUTES else "other"

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(route, str(message["status"])).inc()
            else:
                self._metrics.sent.inc(len(message.get("body", b"")))
            await send(message)

        await self._app(scope, receive, counting)
