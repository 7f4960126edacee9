"""Rights of a node that runs the agent as a systemd service: an account of its own for its own two objects. Pure."""

from typing import Any, Final

from edgewright_contract import names

_API: Final = "rbac.authorization.k8s.io"


def account(node: str) -> str:
    """Name of the node's ServiceAccount; the admission policies know it by this form."""
    return f"agent-{node}"


def documents(node: str) -> list[dict[str, Any]]:
    """The account, what it may do cluster-wide and in the namespace, and the two bindings."""
    name = account(node)
    own = {"resourceNames": [node]}
    group, leases = [names.GROUP], ["coordination.k8s.io"]
    wide = [
        {"apiGroups": group, "resources": [names.EDGE_NODES], **own, "verbs": ["watch"]},
        {"apiGroups": group, "resources": [f"{names.EDGE_NODES}/status"], **own, "verbs": ["patch"]},
    ]
    inside = [
        {"apiGroups": leases, "resources": ["leases"], **own, "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": [name], "verbs": ["create"]},
    ]
    service_account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": names.NAMESPACE},
        "automountServiceAccountToken": False,
    }
    return [service_account, *_bound(name, "ClusterRole", wide, {}), *_bound(name, "Role", inside, _HERE)]


_HERE: Final = {"namespace": names.NAMESPACE}


def _bound(account: str, kind: str, rules: list[dict[str, Any]], place: dict[str, str]) -> list[dict[str, Any]]:
    """A role and its binding to the account."""
    name = f"edgewright-{account}"
    metadata = {"name": name, **place}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": names.NAMESPACE}
    reference = {"apiGroup": _API, "kind": kind, "name": name}
    version = f"{_API}/v1"
    return [
        {"apiVersion": version, "kind": kind, "metadata": metadata, "rules": rules},
        {
            "apiVersion": version,
            "kind": f"{kind}Binding",
            "metadata": metadata,
            "roleRef": reference,
            "subjects": [subject],
        },
    ]
