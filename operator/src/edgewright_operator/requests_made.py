"""Counts requests to the API server; apart from the other metrics, because the client itself needs it."""

from prometheus_client import Counter

REQUESTS = Counter("edgewright_api_requests_total", "Requests to the API server.", ["outcome"])
