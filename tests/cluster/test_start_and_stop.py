"""The servers of the local platform, really started and stopped: times, leftovers, resuming, failing."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest

from edgewright_local.binaries import Binary
from edgewright_local.control_plane import ControlPlane
from edgewright_local.errors import ClusterError, ProcessError
from edgewright_local.mlflow_server import MlflowServer
from edgewright_local.ports import listens
from edgewright_local.process_records import living_family, read_record, start_ticks
from edgewright_local.processes import ManagedProcess, still_running, stop_all
from edgewright_local.prometheus_server import PrometheusServer, ScrapeTarget


def _family(process: ManagedProcess) -> set[int]:
    record = read_record(process.spec.record)
    assert record is not None
    return living_family(record)


def test_a_control_plane_starts_stops_and_resumes(tmp_path: Path, binaries: dict[Binary, Path]) -> None:
    began = time.monotonic()
    first = ControlPlane.start(tmp_path, binaries)
    assert time.monotonic() - began < 60
    try:
        node = first.create_node("edge-1", {"site": "a"})
        token, pids = first.token, [pid for process in first.processes for pid in _family(process)]
    finally:
        began = time.monotonic()
        first.stop()
        first.stop()
    assert time.monotonic() - began < 20
    assert still_running(tmp_path) == []
    assert [pid for pid in pids if start_ticks(pid) is not None] == []
    second = ControlPlane.start(tmp_path, binaries)
    try:
        found = second.api.request("GET", "/api/v1/nodes/edge-1")
        assert found["metadata"]["uid"] == node["metadata"]["uid"]
        assert second.token != token
        old = second.api_for(token)
        assert old.client.get("/api").status_code == httpx2.codes.UNAUTHORIZED
        old.close()
        with pytest.raises(ProcessError, match="etcd already runs from"):
            ControlPlane.start(tmp_path, binaries)
        assert second.api.ready()
    finally:
        second.stop()


def test_a_control_plane_whose_starter_was_killed_is_ended(tmp_path: Path, binaries: dict[Binary, Path]) -> None:
    given = {str(name): str(path) for name, path in binaries.items()}
    starter = f"""
import time
from pathlib import Path
from edgewright_local.binaries import Binary
from edgewright_local.control_plane import ControlPlane
paths = {{Binary(name): Path(path) for name, path in {given!r}.items()}}
print(ControlPlane.start(Path({str(tmp_path)!r}), paths).url, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        url = child.stdout.readline().strip()
        child.send_signal(signal.SIGKILL)
    assert still_running(tmp_path) == ["etcd", "kube-apiserver"]
    assert listens(int(url.rpartition(":")[2]))
    assert stop_all(tmp_path) == ["kube-apiserver", "etcd"]
    assert not listens(int(url.rpartition(":")[2]))


def test_an_api_server_that_fails_takes_etcd_along(tmp_path: Path, binaries: dict[Binary, Path]) -> None:
    broken = tmp_path / "kube-apiserver"
    broken.write_text("#!/bin/sh\necho the certificate is wrong\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(ProcessError, match=r"(?s)kube-apiserver ended with code 3 .*the certificate is wrong"):
        ControlPlane.start(tmp_path / "cp", {**binaries, Binary.KUBE_APISERVER: broken})
    assert still_running(tmp_path) == []


def test_only_the_api_server_may_speak_to_etcd(control_plane: ControlPlane) -> None:
    ca = control_plane.directory / "pki" / "etcd-ca.crt"
    (url,) = [word for word in control_plane.processes[0].spec.command if word.startswith("--listen-client-urls=")]
    context = ssl.create_default_context(cafile=str(ca))
    with pytest.raises(httpx2.HTTPError):
        httpx2.get(f"{url.partition('=')[2]}/version", verify=context, trust_env=False)


def test_the_controller_manager_collects_garbage_and_leaves_nodes_alone(
    tmp_path: Path, every_binary: dict[Binary, Path]
) -> None:
    plane = ControlPlane.start(tmp_path, every_binary, controller_manager=True)
    try:
        node = plane.create_node("edge-1")
        owner = {"apiVersion": "v1", "kind": "Node", "name": "edge-1", "uid": node["metadata"]["uid"]}
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "edge-1", "namespace": "default", "ownerReferences": [owner]},
        }
        plane.apply([lease])
        until = time.monotonic() + 60
        accounts = plane.api.client.get("/api/v1/namespaces/default/serviceaccounts/default")
        while not accounts.is_success and time.monotonic() < until:
            time.sleep(0.2)
            accounts = plane.api.client.get("/api/v1/namespaces/default/serviceaccounts/default")
        assert accounts.is_success
        said = plane.processes[-1].spec.log.read_text()
        for controller in ("node-lifecycle-controller", "taint-eviction-controller"):
            assert f'controller is disabled" controller="{controller}"' in said
        kubectl = [str(every_binary[Binary.KUBECTL]), "--kubeconfig", str(plane.kubeconfig)]
        subprocess.run([*kubectl, "delete", "node", "edge-1"], check=True, capture_output=True, timeout=60)
        path = plane.api.path(lease)
        while plane.api.client.get(path).is_success and time.monotonic() < until:
            time.sleep(0.1)
        assert plane.api.client.get(path).status_code == httpx2.codes.NOT_FOUND
    finally:
        plane.stop()
    assert still_running(tmp_path) == []


def test_mlflow_starts_stops_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "sqlite:////proc/nowhere.db")  # the caller's, not the server's
    first = MlflowServer.start(tmp_path)
    try:
        created = httpx2.post(
            f"{first.url}/api/2.0/mlflow/registered-models/create", json={"name": "nilm"}, trust_env=False
        )
        assert created.status_code == httpx2.codes.OK
        family = _family(first.process)
        assert len(family) >= 2
    finally:
        first.stop()
        first.stop()
    assert [pid for pid in family if start_ticks(pid) is not None] == []
    second = MlflowServer.start(tmp_path)
    try:
        found = httpx2.get(
            f"{second.url}/api/2.0/mlflow/registered-models/get", params={"name": "nilm"}, trust_env=False
        )
        assert found.json()["registered_model"]["name"] == "nilm"
        os.kill(second.process.pid, signal.SIGKILL)  # its worker is left alone
        second.process._child.wait(10)
    finally:
        second.stop()
    assert not listens(int(second.url.rpartition(":")[2]))
    assert still_running(tmp_path) == []


@pytest.fixture
def exporter() -> Iterator[str]:
    """`host:port` of an endpoint that exposes one gauge."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(b"# TYPE edgewright_example gauge\nedgewright_example 42\n")

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_prometheus_scrapes_evaluates_and_refuses(
    tmp_path: Path, every_binary: dict[Binary, Path], exporter: str
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("groups: [{name: g, rules: [{record: edgewright:double, expr: edgewright_example * 2}]}]\n")
    server = PrometheusServer.start(
        tmp_path / "prometheus",
        every_binary,
        [ScrapeTarget("agent", [exporter], labels={"node": "edge-1"})],
        rule_files=[rules],
        scrape_seconds=0.5,
    )
    try:
        (sample,) = server.wait_for("edgewright:double")
        assert (sample.value, sample.labels["node"], sample.labels["job"]) == (84.0, "edge-1", "agent")
        assert server.query("1 + 1")[0].value == 2.0
        assert server.query("absent_metric") == []
        with pytest.raises(ClusterError, match="parse error"):
            server.query("sum(")
        with pytest.raises(ClusterError, match="no sample for 'absent_metric' after 0 s; targets down: none"):
            server.wait_for("absent_metric", 0.2)
        assert server.promtool is not None
        subprocess.run([server.promtool, "check", "rules", rules], check=True, capture_output=True)
    finally:
        server.stop()
    assert still_running(tmp_path) == []


def test_prometheus_with_a_wrong_rule_file_says_which(tmp_path: Path, every_binary: dict[Binary, Path]) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("groups: [{name: g, rules: [{record: x, expr: 'sum('}]}]\n")
    with pytest.raises(ProcessError, match=r"(?s)prometheus ended with code \d+ .*rules\.yaml"):
        PrometheusServer.start(tmp_path / "prometheus", every_binary, [], rule_files=[rules])
