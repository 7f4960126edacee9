"""Free loopback ports for the servers of one run."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from edgewright_local.errors import ProcessError

_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000


def free_ports(count: int, source: random.Random | None = None) -> list[int]:
    """`count` different TCP ports that nobody listens on at 127.0.0.1 now.

    They are taken from below the range from which the kernel serves outgoing connections, so that none of these can
    take a port between this look and the server's start.

    Raises:
        ProcessError: no free port was found.
    """
    draw = source or random.SystemRandom()
    highest = max(int(_EPHEMERAL_RANGE.read_text().split()[0]), _LOWEST + 10_000)
    found: list[int] = []
    for _ in range(1_000):
        if len(found) == count:
            return found
        port = draw.randrange(_LOWEST, highest)
        if port not in found and _is_free(port):
            found.append(port)
    raise ProcessError(f"found only {len(found)} of {count} free ports between {_LOWEST} and {highest} on 127.0.0.1")


def listens(port: int) -> bool:
    """Whether somebody accepts connections at 127.0.0.1:`port`."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
