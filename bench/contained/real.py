"""Each kind of bad release once on real agents: seconds from the decision against it until nobody answers with it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from contained import releases
from contained.fault import Fault
from contained.site import RealSite, opened

from edgewright_local import fleet

Say = Callable[[str], None]
_BY_READINGS = (Fault.DRIFTING, Fault.NAN)
"""Last, and in this order: their readings stay on the nodes, and every later release is judged on them too."""


@dataclass
class Watch:
    """What is seen of one bad release; times are of the monotonic clock."""

    site: RealSite
    manifest: str
    version: int
    good: int
    exposed: set[str] = field(default_factory=set)
    stopped: float | None = None
    """When the release was first seen in quarantine."""
    back: float | None = None
    """Since when every node answers with the good release; none while one does not."""

    def look(self) -> bool:
        """Look at servers and object once; whether it is over."""
        answering, model = self.site.answering(), fleet.compressed_model(self.site.plane)
        now = time.monotonic()
        self.exposed |= {node for node, version in answering.items() if version == self.version}
        if self.stopped is None and fleet.quarantined(model, self.manifest):
            self.stopped = now
        if set(answering.values()) != {self.good}:
            self.back = None
        elif self.back is None:
            self.back = now
        return self.stopped is not None and self.back is not None


def measured(say: Say) -> dict[str, Any]:
    """Fault → which check stopped it, how many nodes answered with it, and how long the way back took."""
    rows = {}
    with TemporaryDirectory(prefix="edgewright-contained-") as folder, opened(Path(folder), say) as site:
        for fault in (*(fault for fault in Fault if fault not in _BY_READINGS), *_BY_READINGS):
            rows[fault.value] = _contained(site, fault)
            say(f"{fault:10} {rows[fault.value]}")
    return rows


def _contained(site: RealSite, fault: Fault) -> dict[str, Any]:
    good = fleet.compressed_model(site.plane)["status"]["lastGood"]["version"]
    bad = site.publish(fault)
    watch = Watch(site, bad.manifest, bad.version, good)

    def looked() -> bool:
        over = watch.look()
        if watch.exposed and watch.stopped is None:
            _provoke(site, fault, watch.exposed)
        return over

    site.until(looked, f"{fault} is stopped and every node is back")
    assert watch.stopped is not None
    assert watch.back is not None
    site.until(lambda: fleet.live(fleet.edge_nodes(site.plane), tuple(site.agents), good), "every agent says so")
    return _row(fleet.compressed_model(site.plane)["status"], watch)


def _provoke(site: RealSite, fault: Fault, exposed: set[str]) -> None:
    """Bring a fault out that is none until something happens."""
    match fault:
        case Fault.CRASHING:
            answering = site.answering()
            for node in exposed:
                if answering[node]:
                    site.crash(node)
        case Fault.NAN | Fault.DRIFTING:
            site.push((releases.STRANGE_WATTS,) if fault is Fault.NAN else (2500.0,), 5)


def _row(status: Mapping[str, Any], watch: Watch) -> dict[str, Any]:
    entry = next(one for one in status["quarantined"] if one["manifest"] == watch.manifest)
    assert watch.stopped is not None
    assert watch.back is not None
    return {
        "stoppedBy": entry["reason"],
        "exposedNodes": len(watch.exposed),
        "recoverySeconds": round(max(0.0, watch.back - watch.stopped), 2),
    }
