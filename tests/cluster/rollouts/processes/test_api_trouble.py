"""An API server in trouble, from the start and in mid-rollout: nobody ends, few requests meanwhile, done soon after."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

Start = Callable[..., subprocess.Popen[bytes]]

TROUBLE_SECONDS = 12.0


@pytest.mark.parametrize("fault", ["BUSY", "BROKEN", "DROP"])
def test_trouble_is_sat_out_at_two_requests_a_second(
    site: Any,
    start: Start,
    proxied: Callable[[], Any],
    faults: Any,
    until: Callable[..., Any],
    joins: Callable[..., None],
    finishes: Callable[..., None],
    fault: str,
) -> None:
    proxy = proxied()
    proxy.fault = lambda _: faults[fault]
    operator = start(proxy.kubeconfig)
    time.sleep(3)  # at start-up: it cannot even ask for the Lease
    assert operator.poll() is None
    proxy.fault = lambda _: None
    joins(site, until)
    until(lambda: site.assigned())
    began = time.monotonic()
    proxy.fault = lambda _: faults[fault]
    time.sleep(TROUBLE_SECONDS)
    proxy.fault = lambda _: None
    over = time.monotonic()
    assert operator.poll() is None
    during = [seen for seen in proxy.seen if began + 1 < seen.at < over and not seen.agent.startswith("kopf")]
    assert len(during) <= 2 * TROUBLE_SECONDS
    finishes(site, until, 1)
    assert operator.poll() is None
