"""Two operator processes: one acts, the other waits; the one that was stopped in its sleep writes nothing any more."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from edgewright_operator.leading import LOST

Start = Callable[..., subprocess.Popen[bytes]]


def _writes(proxy: Any, since: float = 0.0) -> list[str]:
    return [f"{seen.method} {seen.path}" for seen in proxy.seen if seen.writes and not seen.elects and seen.at > since]


def test_the_loser_of_the_lease_writes_nothing_and_ends(
    site: Any,
    start: Start,
    proxied: Callable[[], Any],
    until: Callable[..., Any],
    joins: Callable[..., None],
    finishes: Callable[..., None],
) -> None:
    one, two = proxied(), proxied()
    first = start(one.kubeconfig)
    joins(site, until)
    until(lambda: site.assigned())
    second = start(two.kubeconfig)
    until(lambda: any(seen.elects for seen in two.seen))
    time.sleep(3)  # longer than the Lease's life: it goes on being renewed
    assert _writes(two) == []
    first.send_signal(signal.SIGSTOP)
    finishes(site, until, 1)
    assert _writes(two) != []
    woken = time.monotonic()
    first.send_signal(signal.SIGCONT)
    assert first.wait(20) == LOST
    assert _writes(one, since=woken) == []
    assert second.poll() is None


def test_an_operator_that_is_told_to_end_gives_the_lease_up(
    site: Any, start: Start, until: Callable[..., Any], joins: Callable[..., None], finishes: Callable[..., None]
) -> None:
    first = start(LEASE_SECONDS="30")
    joins(site, until)
    first.terminate()
    assert first.wait(10) == 0
    start(LEASE_SECONDS="30")  # waiting for the Lease to run out would take longer than the test does
    finishes(site, until, 1)
