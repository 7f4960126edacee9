"""How operator and gateway reach the API server: a kubeconfig, or what a pod is given.

The operator takes the `kubernetes` client and its loaders; the gateway asks two questions and goes without its 40 MB.
"""

import base64
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import yaml

if TYPE_CHECKING:
    from kubernetes.aio.client import Configuration

_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ConnectionProblem(ValueError):
    """The API server cannot be reached as told; the text says what is missing."""


class _TokenFile(httpx2.Auth):
    """Reads the token for each request, because a projected token is replaced while we run."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def auth_flow(self, request: httpx2.Request) -> Any:
        request.headers["Authorization"] = f"Bearer {self._file.read_text().strip()}"
        yield request


def connect(kubeconfig: Path | None) -> httpx2.AsyncClient:
    """A client with the API server as base URL.

    Raises:
        ConnectionProblem: no usable kubeconfig, and not in a pod.
    """
    if kubeconfig is None:
        return _in_pod()
    try:
        document = yaml.safe_load(kubeconfig.read_text())
        current = document.get("current-context")
        context = next(entry["context"] for entry in document["contexts"] if entry["name"] == current)
        cluster = next(entry["cluster"] for entry in document["clusters"] if entry["name"] == context["cluster"])
        user = next(entry["user"] for entry in document["users"] if entry["name"] == context["user"])
        token, server = user["token"], cluster["server"]
        trusted = _trusted(cluster, kubeconfig.parent)
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, StopIteration, ValueError) as error:
        raise ConnectionProblem(f"{kubeconfig}: no kubeconfig with a server, a CA and a token ({error!r})") from None
    headers = {"Authorization": f"Bearer {token}"}
    return httpx2.AsyncClient(base_url=server, verify=trusted, headers=headers, timeout=30, trust_env=False)


def _trusted(cluster: dict[str, Any], folder: Path) -> ssl.SSLContext:
    if data := cluster.get("certificate-authority-data"):
        return ssl.create_default_context(cadata=base64.b64decode(data).decode())
    return ssl.create_default_context(cafile=str(folder / cluster["certificate-authority"]))


def _in_pod() -> httpx2.AsyncClient:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (_POD / "token").is_file():
        raise ConnectionProblem(
            "not in a pod: set EDGEWRIGHT_OPERATOR_KUBECONFIG (for the gateway EDGEWRIGHT_GATEWAY_KUBECONFIG)"
        )
    trusted = ssl.create_default_context(cafile=str(_POD / "ca.crt"))
    address = f"[{host}]" if ":" in host else host
    return httpx2.AsyncClient(
        base_url=f"https://{address}:{port}",
        verify=trusted,
        auth=_TokenFile(_POD / "token"),
        timeout=30,
        trust_env=False,
    )


async def configured(kubeconfig: Path | None, connections: int = 64) -> "Configuration":
    """What the `kubernetes` client needs: from a kubeconfig (tokens, certificates, plugins), or from the pod.

    Raises:
        ConnectionProblem: no usable kubeconfig, and not in a pod.
    """
    from kubernetes.aio import config
    from kubernetes.aio.client import Configuration

    configuration = Configuration(
        connection_pool_maxsize=connections, client_session_kwargs={"trust_env": False}, retries=None
    )
    try:
        if kubeconfig is None:
            config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        else:
            load: Any = config.load_kube_config
            await load(str(kubeconfig), client_configuration=configuration, persist_config=False)
    except config.ConfigException as error:
        where = kubeconfig or "not in a pod, and EDGEWRIGHT_OPERATOR_KUBECONFIG names no kubeconfig"
        raise ConnectionProblem(f"{where}: {error}") from None
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConnectionProblem(f"{kubeconfig}: no usable kubeconfig ({error!r})") from None
    return configuration
