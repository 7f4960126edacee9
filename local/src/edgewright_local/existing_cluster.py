"""A cluster that was there before: its kubeconfig becomes a `ControlPlane` without processes, and what the demo puts
into it is written down first, so that `remove` takes out exactly that.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from edgewright_local.cluster_api import ClusterApi, Manifest
from edgewright_local.control_plane import ControlPlane
from edgewright_local.credentials import write_private
from edgewright_local.errors import ClusterError

RECORD: Final = "put-into-cluster.json"


def connect(kubeconfig: Path, directory: Path) -> ControlPlane:
    """The cluster of the kubeconfig's current context, with a token or a client certificate.

    Raises:
        ClusterError: no such file, no current context, a login that needs another program, or no answer.
    """
    cluster, user = _current(kubeconfig)
    directory.mkdir(parents=True, exist_ok=True)
    url = str(cluster.get("server") or "").rstrip("/")
    if not url:
        raise ClusterError(f"{kubeconfig}: the cluster of the current context has no server")
    ca = _file(cluster, "certificate-authority", directory / "ca.crt", kubeconfig)
    certificate = None
    token = str(user.get("token") or "")
    if not token and "tokenFile" in user:
        token = _beside(kubeconfig, user["tokenFile"]).read_text().strip()
    if not token:
        if not any(key.startswith("client-certificate") for key in user):
            raise ClusterError(
                f"{kubeconfig}: the user of the current context logs in with {', '.join(sorted(user)) or 'nothing'};"
                " the demo needs a token or a client certificate (`kubectl create token` makes one)"
            )
        pair = [_file(user, key, directory / f"{key}.pem", kubeconfig) for key in ("client-certificate", "client-key")]
        certificate = (pair[0], pair[1])
    api = ClusterApi(url, ca, token, certificate)
    if not api.ready():
        api.close()
        raise ClusterError(f"{kubeconfig}: {url} does not answer that it is ready; try `kubectl get --raw /readyz`")
    return ControlPlane(directory, url, ca, kubeconfig.absolute(), token, api, ())


def put(plane: ControlPlane, documents: Sequence[Manifest], directory: Path, *, ours: Sequence[Manifest] = ()) -> None:
    """Write down which of `documents` are not there yet, then apply them; a control plane of our own needs no record.

    ours: objects that must not exist before, because the demo would take them over.

    Raises:
        ClusterError: one of `ours` exists.
    """
    if plane.processes:
        plane.apply(documents)
        return
    for document in ours:
        if _exists(plane, document):
            name = f"{document['kind']} {document['metadata']['name']}"
            raise ClusterError(f"the cluster already has {name}; the demo takes nothing over: remove or rename it")
    new = [_key(document) for document in documents if not _exists(plane, document)]
    record = directory / RECORD
    before = json.loads(record.read_text())["objects"] if record.exists() else []
    write_private(record, json.dumps({"kubeconfig": str(plane.kubeconfig), "objects": [*before, *new]}))
    plane.apply(documents)


def remove(directory: Path) -> list[str]:
    """Delete what `put` wrote down, last first; gives `Kind name` of each. Without a record: nothing."""
    record = directory / RECORD
    if not record.exists():
        return []
    written = json.loads(record.read_text())
    plane = connect(Path(written["kubeconfig"]), directory / "cluster")
    try:
        known = [document for document in written["objects"] if _exists(plane, document)]
        plane.api.delete(known)
    finally:
        plane.api.close()
    record.unlink()
    return [f"{document['kind']} {document['metadata']['name']}" for document in reversed(known)]


def _key(document: Manifest) -> dict[str, Any]:
    metadata = {key: document["metadata"][key] for key in ("name", "namespace") if key in document["metadata"]}
    return {"apiVersion": document["apiVersion"], "kind": document["kind"], "metadata": metadata}


def _exists(plane: ControlPlane, document: Manifest) -> bool:
    try:
        path = plane.api.path(document)
    except ClusterError:  # its kind is not known yet
        return False
    return plane.api.client.get(path).is_success


def _current(kubeconfig: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    try:
        document = yaml.safe_load(kubeconfig.read_text())
        named = {
            kind: {entry["name"]: entry[kind[:-1]] for entry in document[kind]}
            for kind in ("clusters", "contexts", "users")
        }
        context = named["contexts"][document["current-context"]]
        return named["clusters"][context["cluster"]], named["users"][context["user"]]
    except OSError as error:
        raise ClusterError(f"{kubeconfig} cannot be read: {error.strerror}; pass the path of a kubeconfig") from None
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ClusterError(f"{kubeconfig} is no kubeconfig with a current context: {error!r}") from None


def _file(section: Mapping[str, Any], key: str, target: Path, kubeconfig: Path) -> Path:
    """The file that the section names under `key`, or one written from `<key>-data`."""
    if data := section.get(f"{key}-data"):
        try:
            return write_private(target, base64.b64decode(data, validate=True))
        except (binascii.Error, ValueError):
            raise ClusterError(f"{kubeconfig}: {key}-data is not base64") from None
    if named := section.get(key):
        return _beside(kubeconfig, named)
    raise ClusterError(f"{kubeconfig}: the current context has no {key}; the demo never skips verification")


def _beside(kubeconfig: Path, named: str) -> Path:
    path = kubeconfig.parent / named
    if not path.is_file():
        raise ClusterError(f"{kubeconfig} names {named}, which is no file")
    return path
