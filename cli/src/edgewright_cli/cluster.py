"""EdgeNodes and CompressedModels of the cluster that a kubeconfig names: all that the CLI asks of one."""

import json
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self, TypeVar

import typer
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from pydantic import BaseModel, ValidationError

from edgewright_contract import names
from edgewright_contract.models import first_fault

Kubeconfig = Annotated[Path | None, typer.Option(help="Else KUBECONFIG, else ~/.kube/config.")]

DEMO_KUBECONFIG = Path(".edgewright/demo/cluster/admin.kubeconfig")
"""Where a demo that runs in this folder keeps its administrator's."""

Form = TypeVar("Form", bound=BaseModel)


class ClusterError(RuntimeError):
    """The cluster could not be read: a sentence that says what to do."""


class Cluster:
    """Reads the objects of edgewright.dev, and edits CompressedModels."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self._objects = client.CustomObjectsApi(api)

    @classmethod
    def from_kubeconfig(cls, path: Path) -> Self:
        """A reader with the kubeconfig's current context.

        Raises:
            ClusterError: there is no such file, or it is no kubeconfig.
        """
        if not path.is_file():
            hint = f"; that of the demo here is {DEMO_KUBECONFIG}" if DEMO_KUBECONFIG.is_file() else ""
            raise ClusterError(f"no kubeconfig at {path}: set KUBECONFIG or pass --kubeconfig{hint}")
        try:
            return cls(config.new_client_from_config(str(path)))  # type: ignore[no-untyped-call]
        except config.ConfigException as error:
            raise ClusterError(f"{path} is no usable kubeconfig: {error}") from None
        except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
            problem = " ".join(f"{type(error).__name__}: {error}".split())
            raise ClusterError(f"{path} is no kubeconfig ({problem}): set KUBECONFIG or pass --kubeconfig") from None

    def edge_nodes(self) -> list[dict[str, Any]]:
        """All EdgeNodes."""
        found = self._call(self._objects.list_cluster_custom_object, names.GROUP, names.VERSION, names.EDGE_NODES)
        return list(found["items"])

    def compressed_model(self, namespace: str, name: str) -> dict[str, Any]:
        """One CompressedModel."""
        return self._call(
            self._objects.get_namespaced_custom_object,
            names.GROUP,
            names.VERSION,
            namespace,
            names.COMPRESSED_MODELS,
            name,
        )

    def edge_node(self, name: str) -> dict[str, Any]:
        """One EdgeNode."""
        return self._call(self._objects.get_cluster_custom_object, names.GROUP, names.VERSION, names.EDGE_NODES, name)

    def edit(self, namespace: str, name: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Merge `changes` into a CompressedModel; null takes a field away."""
        where = (names.GROUP, names.VERSION, namespace, names.COMPRESSED_MODELS, name)
        patch = self._objects.patch_namespaced_custom_object
        return self._call(patch, *where, changes, _content_type="application/merge-patch+json")

    def node_uid(self, name: str) -> str:
        """UID of a Node, to which its tokens are bound.

        Raises:
            ClusterError: there is no such Node.
        """
        return str(self._request("get", f"/api/v1/nodes/{name}")["metadata"]["uid"])

    def apply(self, document: dict[str, Any]) -> None:
        """Server-side apply of one object, as field manager edgewright-cli."""
        client = self._dynamic
        resource = client.resources.get(api_version=document["apiVersion"], kind=document["kind"])
        how = {"field_manager": "edgewright-cli", "force_conflicts": True}
        self._call(lambda: client.server_side_apply(resource, body=document, **how).to_dict())

    def bound_token(self, account: str, node: str, uid: str, audience: str | None, seconds: int) -> str:
        """A token of a ServiceAccount of ours, bound to a Node; no audience: for the API server."""
        reference = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}
        spec: dict[str, Any] = {"boundObjectRef": reference, "expirationSeconds": seconds}
        if audience is not None:
            spec["audiences"] = [audience]
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{names.NAMESPACE}/serviceaccounts/{account}/token"
        return str(self._request("post", path, body)["status"]["token"])

    def address(self) -> tuple[str, str]:
        """URL of the API server and its authority as PEM.

        Raises:
            ClusterError: the kubeconfig names no authority.
        """
        configuration = self._api.configuration
        if not configuration.ssl_ca_cert:
            raise ClusterError("the kubeconfig names no certificate authority, without which no node trusts its server")
        return str(configuration.host), Path(configuration.ssl_ca_cert).read_text()

    @cached_property
    def _dynamic(self) -> Any:
        from kubernetes.dynamic import DynamicClient  # asks the server for all its kinds: only for those who write

        return self._caught(lambda: DynamicClient(self._api))  # type: ignore[no-untyped-call]

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._call(lambda: self._dynamic.request(method, path, body=body).to_dict())

    def _call(self, function: Any, *arguments: Any, **how: Any) -> dict[str, Any]:
        return dict(self._caught(lambda: function(*arguments, **how)))

    def _caught(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except ApiException as error:
            raise ClusterError(f"the cluster answered {error.status}: {_said(error)}") from None
        except Exception as error:  # the client lets its transport's errors through
            raise ClusterError(f"the cluster cannot be reached: {type(error).__name__}: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        close = getattr(self._api, "close", None)
        if close is not None:
            close()


def opened(kubeconfig: Path | None) -> Cluster:
    """The cluster that the option, else KUBECONFIG, else ~/.kube/config names.

    Raises:
        ClusterError: there is no such file, or it is no kubeconfig.
    """
    default = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    return Cluster.from_kubeconfig(kubeconfig or Path(default))


def read_as(form: type[Form], found: dict[str, Any], part: str) -> Form:
    """The spec or the status (`part`) of an object that the cluster gave.

    Raises:
        ClusterError: it has another form than this version knows; names the object and the first field that differs.
    """
    try:
        return form.model_validate(found.get(part) or {})
    except ValidationError as error:
        metadata = found["metadata"]
        name = "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
        raise ClusterError(
            f"{found.get('kind', 'object')} {name}: {first_fault(error, part)}; it was written by another version of"
            " Edgewright or by hand: use the `edgewright` of the version that is installed there"
        ) from None


def _said(error: ApiException) -> str:
    """The API server's own sentence: a policy's says who may do it."""
    try:
        message = str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        message = str(error.reason)
    if error.status == 404 and "could not find the requested resource" in message:
        return "it knows no such objects; is edgewright installed there?"
    return message
