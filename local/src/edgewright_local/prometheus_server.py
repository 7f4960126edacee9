"""A real Prometheus on loopback that scrapes what it is told, so that dashboards and rules are tried on real samples.

`PrometheusServer.start` → `.query(expr)` → `.stop()`; `promtool` checks rule files.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import yaml

from edgewright_local.binaries import Binary, require
from edgewright_local.errors import ClusterError
from edgewright_local.ports import free_ports
from edgewright_local.processes import ManagedProcess, ProcessSpec

_READY_SECONDS = 60.0


@dataclass(frozen=True)
class ScrapeTarget:
    """One scrape job: targets as `host:port`, all with `labels`, at `path`."""

    job: str
    targets: Sequence[str]
    path: str = "/metrics"
    scheme: str = "http"
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Sample:
    """One element of an instant query's answer: labels (with `__name__` if it has one) and value."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class PrometheusServer:
    """A running Prometheus; `promtool` is there when it was among the binaries given."""

    directory: Path
    url: str
    promtool: Path | None
    process: ManagedProcess

    @classmethod
    def start(
        cls,
        directory: Path,
        binaries: Mapping[Binary, Path],
        targets: Sequence[ScrapeTarget],
        *,
        rule_files: Sequence[Path] = (),
        scrape_seconds: float = 1.0,
    ) -> PrometheusServer:
        """Start with static `targets`, scraped (and `rule_files` evaluated) every `scrape_seconds`.

        Raises:
            BuildError: Prometheus is not among `binaries`.
            ProcessError: it did not get ready, for instance because a rule file is wrong (its log is quoted).
        """
        folder = directory.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        configuration = folder / "prometheus.yml"
        configuration.write_text(yaml.safe_dump(_configuration(targets, rule_files, scrape_seconds)))
        port = free_ports(1)[0]
        command = [
            str(require(binaries, Binary.PROMETHEUS)),
            f"--config.file={configuration}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        process = ManagedProcess.start(ProcessSpec("prometheus", command, folder))
        server = cls(folder, f"http://127.0.0.1:{port}", binaries.get(Binary.PROMTOOL), process)
        process.wait_until_ready(server._ready, _READY_SECONDS)
        return server

    def query(self, expression: str) -> list[Sample]:
        """The instant vector (or scalar, without labels) that `expression` gives now.

        Raises:
            ClusterError: Prometheus refused the expression, or it gives a range or a string.
        """
        answer = self._get("/api/v1/query", {"query": expression})
        kind, result = answer["resultType"], answer["result"]
        if kind == "scalar":
            return [Sample({}, float(result[1]))]
        if kind != "vector":
            raise ClusterError(f"{expression!r} gives a {kind}, not an instant vector or a scalar")
        return [Sample(element["metric"], float(element["value"][1])) for element in result]

    def wait_for(self, expression: str, seconds: float = 30.0) -> list[Sample]:
        """Repeat `query` until it gives at least one sample that is a number; give back what it then gives.

        Raises:
            ClusterError: there was none after `seconds`; lists the targets that are down.
        """
        began = time.monotonic()
        while True:
            samples = self.query(expression)
            if any(not math.isnan(sample.value) for sample in samples):
                return samples
            if time.monotonic() - began > seconds:
                down = [dict(sample.labels) for sample in self.query("up == 0")]
                raise ClusterError(
                    f"no sample for {expression!r} after {seconds:.0f} s; targets down: {down or 'none'}"
                )
            time.sleep(0.2)

    def stop(self) -> None:
        """End the process; its samples stay. Stopping twice is fine."""
        self.process.stop()

    def _ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/-/ready", timeout=2.0, trust_env=False).status_code == httpx2.codes.OK
        except httpx2.HTTPError:
            return False

    def _get(self, path: str, parameters: Mapping[str, str]) -> Any:
        answer = httpx2.get(f"{self.url}{path}", params=dict(parameters), timeout=10.0, trust_env=False)
        try:
            body = answer.json()
        except ValueError:
            raise ClusterError(f"Prometheus answered {answer.status_code}: {answer.text[:300]}") from None
        if body["status"] != "success":
            raise ClusterError(f"Prometheus refused {parameters}: {body['error']}")
        return body["data"]


def _configuration(
    targets: Sequence[ScrapeTarget], rule_files: Sequence[Path], scrape_seconds: float
) -> dict[str, Any]:
    interval = f"{max(1, round(scrape_seconds * 1000))}ms"
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": [str(file.absolute()) for file in rule_files],
        "scrape_configs": [_job(target) for target in targets],
    }


def _job(target: ScrapeTarget) -> dict[str, Any]:
    static = {"targets": list(target.targets), "labels": dict(target.labels or {})}
    return {
        "job_name": target.job,
        "metrics_path": target.path,
        "scheme": target.scheme,
        "tls_config": {"insecure_skip_verify": True},  # by address, which no certificate names; unused without TLS
        "static_configs": [static],
    }
