"""A real `kill -9` just after a write reached the API server and before its answer came back, by kind of write."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest

from edgewright_contract import names

Start = Callable[..., subprocess.Popen[bytes]]

KINDS: dict[str, Callable[[Any], bool]] = {
    "EdgeNode created": lambda seen: seen.method == "POST" and seen.path.endswith("/edgenodes"),
    "heartbeat Lease created": lambda seen: seen.method == "POST" and seen.path.endswith("/leases"),
    "Lease renewed": lambda seen: seen.method == "PUT" and seen.path.endswith(f"/leases/{names.OPERATOR_LEASE}"),
    "status written": lambda seen: seen.method == "PUT" and seen.path.endswith("/status"),
    "node moved": lambda seen: seen.method == "PATCH" and "/edgenodes/" in seen.path,
    "event written": lambda seen: seen.method == "POST" and seen.path.endswith("/events"),
}
EARLY = ("EdgeNode created", "heartbeat Lease created", "Lease renewed")
"""Written before there is a wish."""


@pytest.mark.parametrize("kind", KINDS)
def test_killed_between_a_write_and_its_answer(
    site: Any,
    start: Start,
    proxied: Callable[[], Any],
    until: Callable[..., Any],
    joins: Callable[..., None],
    finishes: Callable[..., None],
    kind: str,
) -> None:
    proxy, dead = proxied(), threading.Event()

    def answered(seen: Any, code: int) -> None:
        if KINDS[kind](seen) and code < 300 and not dead.is_set():
            os.kill(first.pid, signal.SIGKILL)
            dead.set()

    first = start(proxy.kubeconfig)
    if kind in EARLY:
        proxy.answered = answered
        assert dead.wait(100)
        start()
        joins(site, until)
    else:
        joins(site, until)
        proxy.answered = answered  # not before: objects that other tests left have a status too
        until(lambda: bool(site.obey()) or dead.is_set())
        assert dead.wait(100)
        start()
    finishes(site, until, 1)
    assert first.wait(10) == -signal.SIGKILL
