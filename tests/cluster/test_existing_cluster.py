"""A cluster that was there before, named by a kubeconfig: what is put into it is taken out again, and nothing else."""

import json
from pathlib import Path

import pytest
import yaml

from edgewright_local import existing_cluster
from edgewright_local.control_plane import ControlPlane
from edgewright_local.errors import ClusterError


def _object(kind: str, name: str, **metadata: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, **metadata}}


def _kubeconfig(path: Path, user: dict[str, object], cluster: dict[str, object] | None = None) -> Path:
    document = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster or {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def test_takes_out_what_it_put_in_and_leaves_what_was_there(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    before = _object("ConfigMap", "before", namespace=namespace)
    control_plane.apply([before])
    plane = existing_cluster.connect(control_plane.kubeconfig, tmp_path / "cluster")
    ours = _object("ConfigMap", "ours", namespace=namespace)
    existing_cluster.put(plane, [before], tmp_path)
    existing_cluster.put(plane, [ours], tmp_path, ours=[ours])
    with pytest.raises(ClusterError, match="already has ConfigMap ours; the demo takes nothing over"):
        existing_cluster.put(plane, [ours], tmp_path, ours=[ours])
    plane.stop()
    assert existing_cluster.remove(tmp_path) == ["ConfigMap ours"]
    assert existing_cluster.remove(tmp_path) == []
    left = control_plane.api.request("GET", f"/api/v1/namespaces/{namespace}/configmaps")["items"]
    assert [item["metadata"]["name"] for item in left] == ["before"]


def test_a_removal_that_fails_is_not_forgotten(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    plane = existing_cluster.connect(control_plane.kubeconfig, tmp_path / "cluster")
    ours = _object("ConfigMap", "ours", namespace=namespace)
    existing_cluster.put(plane, [ours], tmp_path, ours=[ours])
    plane.stop()
    record = tmp_path / existing_cluster.RECORD
    written = json.loads(record.read_text())
    record.write_text(json.dumps({**written, "kubeconfig": str(tmp_path / "gone")}))
    with pytest.raises(ClusterError, match="cannot be read"):
        existing_cluster.remove(tmp_path)
    record.write_text(json.dumps(written))
    assert existing_cluster.remove(tmp_path) == ["ConfigMap ours"]


@pytest.mark.parametrize(
    ("user", "cluster", "sentence"),
    [
        ({"exec": {"command": "login"}}, None, "has no certificate-authority"),
        ({"token": "x"}, {"server": "https://127.0.0.1:1", "certificate-authority-data": "%"}, "is not base64"),
        ({"token": "x"}, {"server": "https://127.0.0.1:1", "certificate-authority": "no.crt"}, "which is no file"),
        ({"token": "x"}, {"certificate-authority": "no.crt"}, "no server"),
    ],
)
def test_says_what_is_wrong_with_a_kubeconfig(
    tmp_path: Path, user: dict[str, object], cluster: dict[str, object] | None, sentence: str
) -> None:
    with pytest.raises(ClusterError, match=sentence):
        existing_cluster.connect(_kubeconfig(tmp_path / "config", user, cluster), tmp_path / "cluster")


def test_a_login_by_plugin_and_a_silent_server_are_named(control_plane: ControlPlane, tmp_path: Path) -> None:
    silent: dict[str, object] = {"server": "https://127.0.0.1:1", "certificate-authority": str(control_plane.ca)}
    with pytest.raises(ClusterError, match="logs in with exec; the demo needs a token"):
        existing_cluster.connect(_kubeconfig(tmp_path / "a", {"exec": {}}, silent), tmp_path / "cluster")
    with pytest.raises(ClusterError, match="does not answer that it is ready"):
        existing_cluster.connect(_kubeconfig(tmp_path / "b", {"token": "x"}, silent), tmp_path / "cluster")


@pytest.mark.parametrize("text", ["", "[]", "current-context: x", "a: [", "{contexts: [], users: [], clusters: []}"])
def test_what_is_no_kubeconfig_is_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(ClusterError, match="is no kubeconfig with a current context"):
        existing_cluster.connect(tmp_path / "config", tmp_path)
