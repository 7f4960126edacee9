"""A real control plane as child processes: etcd, kube-apiserver and, if asked for, kube-controller-manager.

`binaries.ensure` → `ControlPlane.start` → `.api`, `.kubeconfig` → `.stop()`; `processes.stop_all(directory)` ends one
whose starter was killed.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgewright_local.binaries import Binary, require
from edgewright_local.cluster_api import ClusterApi, Manifest
from edgewright_local.credentials import Credentials, Pair, prepare, write_kubeconfig
from edgewright_local.ports import free_ports, listens
from edgewright_local.processes import ManagedProcess, ProcessSpec

ISSUER = "https://kubernetes.default.svc.cluster.local"
_READY_SECONDS = 120.0
_SERVICE_RANGE = "10.96.0.0/16"
# Nodes here have no kubelet, so these two would taint them as unreachable and empty them.
_CONTROLLERS = "*,-node-lifecycle-controller,-taint-eviction-controller"


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane. Helpers of `api` that everybody needs are repeated here."""

    directory: Path
    url: str
    ca: Path
    kubeconfig: Path
    token: str = field(repr=False)
    api: ClusterApi
    processes: tuple[ManagedProcess, ...]

    @classmethod
    def start(
        cls,
        directory: Path,
        binaries: Mapping[Binary, Path],
        *,
        controller_manager: bool = False,
        report: Callable[[str], None] | None = None,
    ) -> ControlPlane:
        """Start in `directory` and return when the API server is ready.

        A folder that was used before keeps its objects, keys and authority; admin token and ports are new. Without
        the controller-manager nothing collects garbage, ends a namespace or makes `default` ServiceAccounts.

        Raises:
            BuildError: a binary is not among `binaries`.
            ProcessError: a process did not get ready (all are stopped again), or this folder's still run.
        """
        say = report or _silent
        folder = directory.absolute()
        credentials = prepare(folder / "pki", dt.datetime.now(dt.UTC))
        ports = _Ports(*free_ports(4))
        started: list[ManagedProcess] = []
        api = ClusterApi(f"https://127.0.0.1:{ports.api}", credentials.ca, credentials.admin_token)
        try:
            started.append(_start_etcd(folder, binaries, credentials, ports, say))
            started.append(_start_apiserver(folder, binaries, credentials, ports, api, say))
            if controller_manager:
                started.append(_start_controller_manager(folder, binaries, credentials, ports, say))
        except BaseException:
            api.close()
            _stop(started)
            raise
        url, admin = f"https://127.0.0.1:{ports.api}", credentials.admin_token
        kubeconfig = write_kubeconfig(folder / "admin.kubeconfig", url, credentials.ca, "edgewright-admin", admin)
        return cls(folder, url, credentials.ca, kubeconfig, admin, api, tuple(started))

    def stop(self) -> None:
        """End the processes, etcd last; the folder stays. Stopping twice is fine."""
        self.api.close()
        _stop(self.processes)

    def kubeconfig_for(self, token: str, user: str) -> Path:
        """Write a kubeconfig for `token` under the name `user`; give back its path (mode 0600)."""
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", user).lstrip(".") or "user"
        return write_kubeconfig(self.directory / "kubeconfigs" / f"{safe}.kubeconfig", self.url, self.ca, user, token)

    def api_for(self, token: str) -> ClusterApi:
        """The same door with another token's rights; close it after use."""
        return ClusterApi(self.url, self.ca, token)

    def service_account_token(
        self, namespace: str, name: str, audience: str | None = None, node: str | None = None, seconds: int = 3600
    ) -> str:
        """See `ClusterApi.service_account_token`."""
        return self.api.service_account_token(namespace, name, audience, node, seconds)

    def apply(self, documents: Iterable[Manifest], namespace: str = "default") -> list[dict[str, Any]]:
        """See `ClusterApi.apply`."""
        return self.api.apply(documents, namespace)

    def create_node(self, name: str, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
        """See `ClusterApi.create_node`."""
        return self.api.create_node(name, labels)

    def wait_for_policy(self, probe: Callable[[], bool], seconds: float = 30.0) -> float:
        """See `ClusterApi.wait_for_policy`."""
        return self.api.wait_for_policy(probe, seconds)


@dataclass(frozen=True)
class _Ports:
    etcd: int
    etcd_peer: int
    api: int
    controller_manager: int


def _start_etcd(
    folder: Path, binaries: Mapping[Binary, Path], credentials: Credentials, ports: _Ports, say: Callable[[str], None]
) -> ManagedProcess:
    client, peer = f"https://127.0.0.1:{ports.etcd}", f"https://127.0.0.1:{ports.etcd_peer}"
    pair, ca = credentials.etcd_server, credentials.etcd_ca
    command = [
        str(require(binaries, Binary.ETCD)),
        "--name=edgewright",
        f"--data-dir={folder / 'etcd'}",
        "--unsafe-no-fsync",  # a power cut may lose this store; it holds a demo or a test
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=edgewright={peer}",
        *_etcd_tls("", pair, ca),
        *_etcd_tls("peer-", pair, ca),
    ]
    process = ManagedProcess.start(ProcessSpec("etcd", command, folder))
    # Its own health answer comes by the API server's first read; here only that it listens counts.
    seconds = process.wait_until_ready(lambda: listens(ports.etcd), _READY_SECONDS)
    say(f"etcd listens after {seconds:.1f} s")
    return process


def _etcd_tls(prefix: str, pair: Pair, ca: Path) -> list[str]:
    return [
        f"--{prefix}cert-file={pair.certificate}",
        f"--{prefix}key-file={pair.key}",
        f"--{prefix}trusted-ca-file={ca}",
        f"--{prefix}client-cert-auth",
    ]


def _start_apiserver(
    folder: Path,
    binaries: Mapping[Binary, Path],
    credentials: Credentials,
    ports: _Ports,
    api: ClusterApi,
    say: Callable[[str], None],
) -> ManagedProcess:
    command = [
        str(require(binaries, Binary.KUBE_APISERVER)),
        f"--etcd-servers=https://127.0.0.1:{ports.etcd}",
        f"--etcd-cafile={credentials.etcd_ca}",
        f"--etcd-certfile={credentials.etcd_client.certificate}",
        f"--etcd-keyfile={credentials.etcd_client.key}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",  # loopback is no valid endpoint, and no pod looks for one
        f"--secure-port={ports.api}",
        f"--cert-dir={folder / 'apiserver'}",
        f"--tls-cert-file={credentials.server.certificate}",
        f"--tls-private-key-file={credentials.server.key}",
        f"--service-account-key-file={credentials.service_account_public}",
        f"--service-account-signing-key-file={credentials.service_account_key}",
        f"--service-account-issuer={ISSUER}",
        f"--api-audiences={ISSUER}",
        f"--token-auth-file={credentials.tokens}",
        "--anonymous-auth=false",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--service-cluster-ip-range={_SERVICE_RANGE}",
        "--profiling=false",
    ]
    process = ManagedProcess.start(ProcessSpec("kube-apiserver", command, folder))
    seconds = process.wait_until_ready(api.ready, _READY_SECONDS)
    say(f"kube-apiserver is ready after {seconds:.1f} s at {api.client.base_url}")
    return process


def _start_controller_manager(
    folder: Path, binaries: Mapping[Binary, Path], credentials: Credentials, ports: _Ports, say: Callable[[str], None]
) -> ManagedProcess:
    kubeconfig = write_kubeconfig(
        folder / "kubeconfigs" / "controller-manager.kubeconfig",
        f"https://127.0.0.1:{ports.api}",
        credentials.ca,
        "system:kube-controller-manager",
        credentials.controller_manager_token,
    )
    command = [
        str(require(binaries, Binary.KUBE_CONTROLLER_MANAGER)),
        f"--kubeconfig={kubeconfig}",
        f"--controllers={_CONTROLLERS}",
        "--leader-elect=false",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={credentials.service_account_key}",
        f"--root-ca-file={credentials.ca}",
        "--bind-address=127.0.0.1",
        f"--secure-port={ports.controller_manager}",
        f"--cert-dir={folder / 'controller-manager'}",
        "--profiling=false",
    ]
    process = ManagedProcess.start(ProcessSpec("kube-controller-manager", command, folder))
    seconds = process.wait_until_ready(lambda: listens(ports.controller_manager), _READY_SECONDS)
    say(f"kube-controller-manager listens after {seconds:.1f} s")
    return process


def _stop(processes: Iterable[ManagedProcess]) -> None:
    """Last started, first stopped: an API server whose etcd has gone ignores SIGTERM for minutes."""
    for process in reversed(list(processes)):
        process.stop()


def _silent(_line: str) -> None:
    pass
